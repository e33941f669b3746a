//! A tree of elements: what is written is balanced and escaped, whatever the names in it.
//!
//! The page is HTML and well-formed XML at once, so that any XML parser can judge it.

use std::fmt::{self, Write};

/// Elements of HTML that have no end tag.
const VOID: [&str; 1] = ["meta"];

/// An element with its attributes and what it contains.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    content: Vec<Content>,
}

#[derive(Debug, Clone)]
enum Content {
    Element(Element),
    Text(String),
}

pub(crate) fn element(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), content: Vec::new() }
}

impl Element {
    #[expect(clippy::needless_pass_by_value, reason = "numbers and fresh strings are handed over alike")]
    pub(crate) fn with(mut self, attribute: &'static str, value: impl ToString) -> Self {
        self.attributes.push((attribute, value.to_string()));
        self
    }

    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.content.push(Content::Text(text.into()));
        self
    }

    pub(crate) fn child(mut self, child: Element) -> Self {
        self.content.push(Content::Element(child));
        self
    }

    pub(crate) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.content.extend(children.into_iter().map(Content::Element));
        self
    }

    /// Line breaks between children would show within running text, and nowhere else.
    fn is_running_text(&self) -> bool {
        self.content.iter().any(|content| matches!(content, Content::Text(_)))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=\"")?;
            escape(f, value)?;
            f.write_char('"')?;
        }
        if VOID.contains(&self.name) {
            return f.write_str("/>");
        }
        f.write_char('>')?;
        let line_break = if self.is_running_text() { "" } else { "\n" };
        for content in &self.content {
            f.write_str(line_break)?;
            match content {
                Content::Element(element) => write!(f, "{element}")?,
                Content::Text(text) => escape(f, text)?,
            }
        }
        if !self.content.is_empty() {
            f.write_str(line_break)?;
        }
        write!(f, "</{}>", self.name)
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for character in text.chars() {
        match character {
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '&' => f.write_str("&amp;")?,
            '"' => f.write_str("&quot;")?,
            // XML forbids them, escaped or not.
            control if control.is_control() && !matches!(control, '\n' | '\t') => f.write_char('\u{FFFD}')?,
            other => f.write_char(other)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        let hostile = "<script>\"&\u{1}";
        let shown = element("p").with("title", hostile).text(hostile).to_string();
        let escaped = "&lt;script&gt;&quot;&amp;\u{FFFD}";
        assert_eq!(shown, format!("<p title=\"{escaped}\">{escaped}</p>"));
    }

    #[test]
    fn running_text_is_left_in_one_line() {
        let shown = element("p").text("by ").child(element("code").text("a")).text(".").to_string();
        assert_eq!(shown, "<p>by <code>a</code>.</p>");
        assert_eq!(element("tr").child(element("td")).to_string(), "<tr>\n<td></td>\n</tr>");
    }
}
