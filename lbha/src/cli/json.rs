//! Lays out JSON without reading it: order, numbers and unknown fields stay as the daemon sent them.

use serde::de::IgnoredAny;

/// With two spaces of indent and a newline at the end.
pub fn pretty(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    lay_out(json, Some(2))
}

/// On one line, with a newline at the end.
pub fn compact(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    lay_out(json, None)
}

fn lay_out(json: &[u8], indent: Option<usize>) -> Result<Vec<u8>, serde_json::Error> {
    // From here on it is known to be JSON, so looking at single characters is enough.
    serde_json::from_slice::<IgnoredAny>(json)?;

    let mut out = Vec::with_capacity(json.len() * if indent.is_some() { 2 } else { 1 } + 1);
    let mut depth = 0_usize;
    let mut bytes = json.iter().copied().filter_outside_strings().peekable();
    let newline = |out: &mut Vec<u8>, depth: usize| {
        if let Some(indent) = indent {
            out.push(b'\n');
            out.resize(out.len() + depth * indent, b' ');
        }
    };
    while let Some((byte, in_string)) = bytes.next() {
        match byte {
            _ if in_string => out.push(byte),
            b'{' | b'[' => {
                out.push(byte);
                // `{}` and `[]` stay together.
                if let Some((close @ (b'}' | b']'), false)) = bytes.peek().copied() {
                    out.push(close);
                    bytes.next();
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => {
                out.push(byte);
                if indent.is_some() {
                    out.push(b' ');
                }
            }
            _ => out.push(byte),
        }
    }
    out.push(b'\n');
    Ok(out)
}

trait FilterOutsideStrings: Iterator<Item = u8> + Sized {
    /// Drops the whitespace between tokens, and says of each other byte whether it is within a string.
    fn filter_outside_strings(self) -> impl Iterator<Item = (u8, bool)> {
        let (mut in_string, mut escaped) = (false, false);
        self.filter_map(move |byte| {
            let within = in_string;
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
            } else if byte.is_ascii_whitespace() {
                return None;
            } else if byte == b'"' {
                in_string = true;
            }
            Some((byte, within))
        })
    }
}

impl<I: Iterator<Item = u8>> FilterOutsideStrings for I {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn layout_is_serdes_and_the_order_the_senders() {
        let json = br#" {"z":[1,2.50,{}],"a":"x, \"{y}\" \\","e":[ ],"n":null} "#;
        let expected = "{\n  \"z\": [\n    1,\n    2.50,\n    {}\n  ],\n  \"a\": \"x, \\\"{y}\\\" \\\\\",\n  \
                        \"e\": [],\n  \"n\": null\n}\n";
        assert_eq!(String::from_utf8(pretty(json).unwrap()).unwrap(), expected);
        assert_eq!(
            compact(expected.as_bytes()).unwrap(),
            b"{\"z\":[1,2.50,{}],\"a\":\"x, \\\"{y}\\\" \\\\\",\"e\":[],\"n\":null}\n"
        );
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "{}{}", "<html>", "[1,]"] {
            assert!(pretty(text.as_bytes()).is_err(), "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<Option<bool>>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn layout_agrees_with_serde_json(value in value()) {
            let text = serde_json::to_vec(&value).unwrap();
            let mut expected = serde_json::to_vec_pretty(&value).unwrap();
            expected.push(b'\n');
            prop_assert_eq!(&pretty(&text).unwrap(), &expected);
            prop_assert_eq!(&compact(&expected).unwrap()[..text.len()], &text[..]);
        }
    }
}
