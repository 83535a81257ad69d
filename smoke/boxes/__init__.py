"""Where the programs of a smoke run are run: containers of the images under test, or plain processes of this machine."""
