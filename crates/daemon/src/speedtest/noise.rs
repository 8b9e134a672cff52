//! A body of octets that cannot be compressed, for as long as is wanted.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use cygnet_crypto::{Random, SystemRandom};
use hyper::body::{Body, Bytes, Frame};

/// Octets that come again and again: far more than a compressor on the way remembers.
const LENGTH: usize = 1 << 20;
/// Octets that are handed out at once.
const FRAME: usize = 128 << 10;
/// How much further the next frame begins, so that no two in a row are the same.
const STEP: usize = FRAME + 4099;

/// What all bodies of a process are made of.
pub(super) fn source() -> Bytes {
    let mut octets = vec![0; LENGTH];
    SystemRandom.fill(&mut octets);
    octets.into()
}

/// Such a body; it is not made faster than it is read.
pub(super) struct Noise {
    source: Bytes,
    at: usize,
    until: Instant,
}

impl Noise {
    pub(super) fn new(source: &Bytes, until: Instant) -> Self {
        Self {
            source: source.clone(),
            at: 0,
            until,
        }
    }
}

impl Body for Noise {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if Instant::now() >= self.until {
            return Poll::Ready(None);
        }
        let frame = self.source.slice(self.at..self.at + FRAME);
        self.at = (self.at + STEP) % (LENGTH - FRAME);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn frames_differ_and_end_with_the_time() {
        let source = source();
        let mut noise = Noise::new(&source, Instant::now() + Duration::from_secs(3600));
        let mut before = Bytes::new();
        for _ in 0..50 {
            let frame = noise.frame().await.unwrap();
            let frame = frame.unwrap().into_data().unwrap();
            assert_eq!(frame.len(), FRAME);
            assert_ne!(frame, before);
            before = frame;
        }
        noise.until = Instant::now();
        assert!(noise.frame().await.is_none());
    }
}
