"""Programs that run inside the images; they import nothing of Pinwheel."""
