"""Converting notebooks to other formats, by nbconvert."""
