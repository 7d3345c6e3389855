"""Making a failing module small: `irc reduce`."""
