//! Hosts of VirtualServices and DestinationRules, as text.

/// Whether a full host covers the full name `name`: equal, or a wildcard that ends like it.
pub fn covers(host: &str, name: &str) -> bool {
    match host.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => host == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_names_that_are_longer() {
        assert!(covers("a.b", "a.b"));
        assert!(covers("*", "a.b"));
        assert!(covers("*.b", "a.b"));
        assert!(!covers("*.b", ".b"));
        assert!(!covers("*.c", "a.b"));
        assert!(!covers("a.c", "a.b"));
    }
}
