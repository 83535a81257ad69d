"""What a build would make and what a push would send, before either is done."""
