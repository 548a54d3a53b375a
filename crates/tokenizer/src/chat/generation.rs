//! The tag `{% generation %}` of transformers, which says what of a text the assistant wrote.

use super::conversation::Text;

/// The filter that replaces the tag.
pub(super) const FILTER: &str = "__generation";

/// Rewrites `{% generation %}` as a filter in a scope of its own. Returns whether there is such a tag.
///
/// Transformers compiles it to a call block, but in one of `minijinja`, `set` does not see the namespaces outside.
///
/// The tag is also rewritten in comments and in texts of the template, where nobody writes it.
pub(super) fn rewrite(source: &str) -> (String, bool) {
    let mut text = String::with_capacity(source.len());
    let mut has_tag = false;
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        match generation_tag(tag) {
            Some((open, is_end, close, len)) => {
                has_tag = true;
                text.push_str(&match is_end {
                    true => format!("{{%{open} endfilter %}}{{% endwith {close}%}}"),
                    false => format!("{{%{open} with %}}{{% filter {FILTER} {close}%}}"),
                });
                // The line numbers of errors count the lines inside of the tag.
                rest = &tag[len..];
            }
            None => {
                text.push_str("{%");
                rest = &tag[2..];
            }
        }
    }
    text.push_str(rest);
    (text, has_tag)
}

/// The sign after `{%`, whether it ends the block, the sign before `%}`, and the length; `None` for other tags.
fn generation_tag(tag: &str) -> Option<(&str, bool, &str, usize)> {
    let signed = |text: &str| usize::from(text.starts_with(['-', '+']));
    let inner = &tag[2..];
    let (open, inner) = inner.split_at(signed(inner));
    let inner = inner.trim_start();
    let (is_end, inner) = match inner.strip_prefix("end") {
        Some(inner) => (true, inner),
        None => (false, inner),
    };
    let inner = inner.strip_prefix("generation")?.trim_start();
    let (close, inner) = inner.split_at(signed(inner));
    let rest = inner.strip_prefix("%}")?;
    Some((open, is_end, close, tag.len() - rest.len()))
}

/// Characters that occur nowhere else in a rendered text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Before what the assistant says.
    pub(super) open: char,
    /// After what the assistant says.
    pub(super) close: char,
    /// Inside of a special token that a message spells.
    pub(super) broken: char,
}

/// Takes the marks out of a text. `None` if the marks of the assistant are not in pairs.
pub(super) fn take_marks(marked: &str, marks: Marks) -> Option<Text> {
    let mut text = String::with_capacity(marked.len());
    let (mut generated, mut breaks) = (Vec::new(), Vec::new());
    let mut start = None;
    for char in marked.chars() {
        match char {
            _ if char == marks.broken => breaks.push(text.len()),
            _ if char == marks.open && start.is_none() => start = Some(text.len()),
            _ if char == marks.open => return None,
            _ if char == marks.close => generated.push(start.take()?..text.len()),
            _ => text.push(char),
        }
    }
    start.is_none().then_some(Text { text, generated, breaks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_tag_becomes_a_filter_in_a_scope() {
        let source = "a{% generation %}b{%-generation-%}{%+ generation +%}{{ x }}{%- endgeneration %}{%endgeneration%}\
                      {% if generation %}{% generations %}";
        let (text, has_tag) = rewrite(source);
        assert!(has_tag);
        assert_eq!(
            text,
            "a{% with %}{% filter __generation %}b{%- with %}{% filter __generation -%}\
             {%+ with %}{% filter __generation +%}{{ x }}{%- endfilter %}{% endwith %}\
             {% endfilter %}{% endwith %}{% if generation %}{% generations %}"
        );
        assert_eq!(rewrite("{% if x %}{% endif %}{%"), ("{% if x %}{% endif %}{%".to_owned(), false));
    }

    #[test]
    fn marks_become_ranges_of_the_text_without_them() {
        let marks = Marks { open: '<', close: '>', broken: '/' };
        let Text { text, generated, breaks } = take_marks("a<b/ß>c<>/", marks).unwrap();
        assert_eq!((text.as_str(), generated, breaks), ("abßc", vec![1..4, 5..5], vec![2, 5]));
        for unpaired in ["<a", "a>", "<a<b>>", "<a>b>"] {
            assert!(take_marks(unpaired, marks).is_none());
        }
    }
}
