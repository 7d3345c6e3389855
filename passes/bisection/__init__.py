"""Finding the pass, operation or command that is at fault: `irc bisect`."""
