/// Text as HTML content or attribute value: markup is escaped, and what a reader could not see is made visible.
///
/// Control characters become their pictures (U+2400 and on), direction overrides become U+FFFD, so that no prompt
/// can rearrange the page around it. Newlines and tabs stay.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            _ => escaped.push(visible_character(character)),
        }
    }
    escaped
}

/// Text to draw into a picture, on one line: what a reader could not see is made visible as in [`escape`], newlines and
/// tabs too, and what is longer than `limit` characters ends in `…`. Markup is left to the one that writes the picture.
pub fn visible(text: &str, limit: usize) -> String {
    let shown = text.chars().map(visible_character);
    match text.char_indices().nth(limit) {
        None => shown.collect(),
        Some(_) => shown.take(limit.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The character itself, or a visible substitute for one that cannot be seen or that XML does not allow.
fn visible_character(character: char) -> char {
    match character {
        '\0'..='\x1f' => char::from_u32(0x2400 + character as u32).unwrap_or('\u{fffd}'),
        '\x7f' => '␡',
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        '\u{fdd0}'..='\u{fdef}' => '\u{fffd}',
        _ if character as u32 & 0xfffe == 0xfffe => '\u{fffd}',
        _ => character,
    }
}

/// Escaped text of at most `limit` characters; what is cut is counted.
pub fn escape_up_to(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => escape(text),
        Some((end, _)) => {
            let more = text[end..].chars().count();
            format!("{}<span class=\"cut\"> … {more} characters more</span>", escape(&text[..end]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(
            escape("<b a=\"x\" b='y'>&</b>"),
            "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;&lt;/b&gt;"
        );
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(escape("a\0\x1b[1m\u{202e}\u{85}\nb\r"), "a␀␛[1m\u{fffd}\u{fffd}\nb␍");
    }

    #[test]
    fn drawn_text_is_one_visible_line() {
        assert_eq!(visible("a\0\x1b\x07\u{202e}\n\t\u{ffff}<é", 20), "a␀␛␇\u{fffd}␊␉\u{fffd}<é");
        assert_eq!([visible("äöü", 3), visible("äöü", 2)], ["äöü", "ä…"]);
    }

    #[test]
    fn long_text_is_cut_between_characters_and_counted() {
        assert_eq!(escape_up_to("äöü<", 2), "äö<span class=\"cut\"> … 2 characters more</span>");
        assert_eq!(escape_up_to("ä<", 2), "ä&lt;");
    }
}
