//! Splits a text into sentences, so that results can be streamed sentence by sentence.

use segtok::segmenter::{SegmentConfig, split_multi};

/// The sentences of a text, trimmed, none of them empty.
pub(crate) fn split(text: &str) -> Vec<String> {
    split_multi(text, SegmentConfig::default())
        .iter()
        // The segmenter expects a space after a full stop; Chinese and Japanese have none.
        .flat_map(|sentence| sentence.split_inclusive(['。', '！', '？']))
        .map(str::trim)
        .filter(|sentence| !sentence.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn splits_at_the_end_of_sentences_but_not_at_abbreviations() {
        let sentences =
            split("Dr. Smith came on Jan. 3rd. He liked it! Did you?\n\nWe did, e.g. the cake.");
        assert_eq!(
            sentences,
            [
                "Dr. Smith came on Jan. 3rd.",
                "He liked it!",
                "Did you?",
                "We did, e.g. the cake."
            ]
        );
    }

    #[test]
    fn splits_where_no_space_follows_the_full_stop() {
        assert_eq!(
            split("今日は良い天気です。散歩に行きましょう。"),
            ["今日は良い天気です。", "散歩に行きましょう。"]
        );
    }

    #[test]
    fn blank_text_has_no_sentences() {
        assert!(split(" \n\n \t").is_empty());
    }
}
