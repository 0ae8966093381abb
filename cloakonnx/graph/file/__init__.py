"""The user's file: read, edited and written without losing a byte; what its metadata records."""
