//! Encoded values in pieces: long bytes inside a value are shared with whoever holds them, and copied
//! neither to be sent nor when they were received.
//!
//! The pieces of a value, one after the other, are what [`encode`](super::encode) gives. Who writes or
//! reads a value field by field must follow the order of its type; golden vectors compare the two.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{USUAL_BYTES, VERSION, check_length, decode_front, encode_into};
use crate::Fault;

/// Shorter bytes are copied: a piece of their own would cost more.
const SHARED_BYTES: usize = 512;

/// Encodes one value, field by field.
#[derive(Debug)]
pub struct Writer {
    whole: Vec<Bytes>,
    last: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        let mut last = Vec::with_capacity(USUAL_BYTES);
        last.push(VERSION);
        Self { whole: Vec::new(), last }
    }
}

impl Writer {
    /// Appends a field.
    pub fn put<T: Serialize>(&mut self, field: &T) {
        encode_into(field, &mut self.last);
    }

    /// Appends a field of bytes, given as the pieces that make it up.
    pub fn put_bytes(&mut self, field: &[Bytes]) {
        self.put(&field.iter().map(|piece| piece.len() as u64).sum::<u64>());
        for piece in field {
            if piece.len() < SHARED_BYTES {
                self.last.extend_from_slice(piece);
            } else {
                self.whole.push(std::mem::take(&mut self.last).into());
                self.whole.push(piece.clone());
            }
        }
    }

    /// The pieces.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.whole.push(self.last.into());
        self.whole
    }
}

/// Decodes one value, field by field.
#[derive(Debug)]
pub struct Reader<'a> {
    what: &'a str,
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins with a value of at most `max_len` bytes; `what` names it in errors.
    ///
    /// # Errors
    /// [`Fault::Version`] for another version, [`Fault::Corrupt`] for no bytes or too many.
    pub fn new(what: &'a str, bytes: &'a Bytes, max_len: usize) -> Result<Self, Fault> {
        check_length(what, bytes, max_len)?;
        Ok(Self { what, whole: bytes, rest: super::body(what, bytes)? })
    }

    /// The next field.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] where there is none of this type.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<T, Fault> {
        let (field, used) = decode_front(self.what, self.rest)?;
        self.rest = &self.rest[used..];
        Ok(field)
    }

    /// The next field, which is bytes: a part of those that are read.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] where there are not that many.
    pub fn take_bytes(&mut self) -> Result<Bytes, Fault> {
        let len: u64 = self.take()?;
        let found = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (field, rest) =
            found.ok_or_else(|| Fault::corrupt(format!("{} is cut short", self.what)))?;
        self.rest = rest;
        Ok(self.whole.slice_ref(field))
    }

    /// Ends the value.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if bytes are left.
    pub fn finish(self) -> Result<(), Fault> {
        super::check_all_used(self.what, self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;

    const MAX: usize = 1 << 20;

    fn written(number: u64, long: &Bytes, text: &str) -> Vec<Bytes> {
        let mut writer = Writer::default();
        writer.put(&number);
        writer.put_bytes(std::slice::from_ref(long));
        writer.put(&text);
        writer.finish()
    }

    #[test]
    fn pieces_are_the_value_and_share_what_is_long() {
        for len in [0, 1, SHARED_BYTES - 1, SHARED_BYTES, 100_000] {
            let long = Bytes::from(vec![7; len]);
            let pieces = written(300, &long, "end");
            let whole = Bytes::from(pieces.concat());
            assert_eq!(whole, encode(&(300_u64, &long, "end")), "{len}");
            let shared = pieces.iter().any(|piece| len > 0 && piece.as_ptr() == long.as_ptr());
            assert_eq!(shared, len >= SHARED_BYTES, "{len}");

            let mut reader = Reader::new("a value", &whole, MAX).unwrap();
            assert_eq!(reader.take::<u64>().unwrap(), 300);
            let read = reader.take_bytes().unwrap();
            assert_eq!(read, long);
            assert!(len == 0 || whole.as_ptr_range().contains(&read.as_ptr()), "not a copy");
            assert_eq!(reader.take::<String>().unwrap(), "end");
            reader.finish().unwrap();
        }
    }

    #[test]
    fn bytes_in_several_pieces_are_one_field() {
        let pieces = ["short", &"long".repeat(SHARED_BYTES), "", "end"].map(str::to_owned);
        let pieces = pieces.map(Bytes::from);
        let mut writer = Writer::default();
        writer.put_bytes(&pieces);
        assert_eq!(writer.finish().concat(), encode(&Bytes::from(pieces.concat())));
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        let whole = Bytes::from(written(300, &Bytes::from_static(b"long"), "end").concat());
        assert!(Reader::new("a value", &whole, whole.len() - 1).is_err());
        for len in 0..whole.len() {
            let cut = whole.slice(..len);
            let read = Reader::new("a value", &cut, MAX).and_then(|mut reader| {
                reader.take::<u64>()?;
                reader.take_bytes()?;
                reader.take::<String>()?;
                reader.finish()
            });
            assert!(matches!(read, Err(Fault::Corrupt(_))), "{len} bytes: {read:?}");
        }
        let mut reader = Reader::new("a value", &whole, MAX).unwrap();
        reader.take::<u64>().unwrap();
        assert!(matches!(reader.finish(), Err(Fault::Corrupt(_))), "bytes are left");
        let other = Bytes::from_static(&[VERSION + 1, 0]);
        assert!(matches!(Reader::new("a value", &other, MAX), Err(Fault::Version { .. })));
        let absurd = Bytes::from([&[VERSION][..], &[0xfd; 9][..]].concat());
        let mut reader = Reader::new("a value", &absurd, MAX).unwrap();
        assert!(reader.take_bytes().is_err(), "a length beyond all bounds");
    }
}
