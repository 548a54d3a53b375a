//! Checksums of rows.

/// A checksum over rows of tokens, in words: what a stage trains on, whichever file the rows came from. A resumed run
/// compares it with that of its start.
///
/// `parts` are the parts of all `n_rows` rows in their order; where a part ends counts.
pub(crate) fn fingerprint_rows<'a>(n_rows: usize, parts: impl IntoIterator<Item = &'a [u32]>) -> String {
    let mut crc = flate2::Crc::new();
    for part in parts {
        crc.update(&(part.len() as u64).to_le_bytes());
        part.iter().for_each(|token| crc.update(&token.to_le_bytes()));
    }
    in_words(n_rows, &crc)
}

/// The same over texts, one for each row.
pub(crate) fn fingerprint_texts(texts: impl IntoIterator<Item = String>) -> String {
    let (mut crc, mut n_rows) = (flate2::Crc::new(), 0);
    for text in texts {
        crc.update(&(text.len() as u64).to_le_bytes());
        crc.update(text.as_bytes());
        n_rows += 1;
    }
    in_words(n_rows, &crc)
}

fn in_words(n_rows: usize, crc: &flate2::Crc) -> String {
    format!("{n_rows} rows with checksum {:08x}", crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_differ_in_a_token_or_a_border_have_other_fingerprints() {
        let of = |parts: &[&[u32]]| fingerprint_rows(2, parts.iter().copied());
        let whole = of(&[&[1, 2], &[3]]);
        assert!(whole.starts_with("2 rows with checksum "), "{whole}");
        assert_eq!(whole, of(&[&[1, 2], &[3]]));
        for other in [of(&[&[1, 2], &[4]]), of(&[&[1], &[2, 3]]), of(&[&[3], &[1, 2]]), of(&[&[1, 2]])] {
            assert_ne!(whole, other);
        }
    }
}
