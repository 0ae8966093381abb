"""Parts of a run that know nothing of each other, each kept in a file, and the whole run made of these files."""
