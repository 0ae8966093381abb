"""Views of results for people: tables for a terminal, Markdown for a pull request, a page to look at."""
