"""The commands of `lungct`, one file each: arguments in, rooms called, a summary out."""
