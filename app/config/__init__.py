"""The settings of frontends, by section."""
