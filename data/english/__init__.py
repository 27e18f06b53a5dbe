"""The English data of the profile `pocket`: built by this project's own code, judged by rules."""
