//! Wildcards: `*` stands for any number of characters, `?` for one.

/// Whether the whole of `text` is what `pattern` says. Takes at most their lengths' product.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Where to go on after the last star: it takes one character more.
    let mut star = None;
    loop {
        let here = text.clone();
        match (pattern.next(), text.next()) {
            (Some('*'), _) => {
                text = here;
                star = Some((pattern.clone(), text.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            (None, None) => return true,
            _ => {
                let Some((after, mut taken)) = star.take() else {
                    return false;
                };
                if taken.next().is_none() {
                    return false;
                }
                pattern = after.clone();
                text = taken.clone();
                star = Some((after, taken));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn defined(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                defined(rest, text) || (!text.is_empty() && defined(pattern, &text[1..]))
            }
            (['?', rest @ ..], [_, more @ ..]) => defined(rest, more),
            ([wanted, rest @ ..], [found, more @ ..]) => wanted == found && defined(rest, more),
            _ => false,
        }
    }

    #[test]
    fn wildcards_match_what_they_stand_for() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("?", "", false),
            ("?", "ä", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*a*b", "xaxbxb", true),
            ("Generate*Key", "GenerateDataKey", true),
            ("Generate*Key", "GenerateDataKeyPair", false),
            ("a**?", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = "*a".repeat(2000);
        assert!(!matches(&pattern, &"a".repeat(1999)));
        assert!(matches(&pattern, &"a".repeat(2000)));
        assert!(!matches(&format!("{pattern}b"), &"a".repeat(4000)));
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "too much for an interpreter")]
        fn matching_is_as_defined(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), defined(&chars(&pattern), &chars(&text)));
        }
    }
}
