//! A stream whose reader may not stop reading.
//!
//! hyper gives an answer all the time in the world: a client that takes nothing keeps its connection, and the room
//! that it has under our bound, for ever.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream that fails with [`ErrorKind::TimedOut`] when a write waits longer than it may.
pub(crate) struct Impatient<S> {
    stream: S,
    timeout: Duration,
    /// Runs only while a write waits.
    deadline: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, deadline: Box::pin(sleep(timeout)), is_waiting: false }
    }

    /// What a write came to: progress ends the wait, and a wait may be over.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.timeout);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_loses_its_connection_and_a_slow_one_does_not() {
        let (near, mut far) = duplex(8);
        let mut stream = Impatient::new(near, TIMEOUT);
        let began = Instant::now();
        let reading = async {
            let mut some = [0; 8];
            // Each time just soon enough.
            for _ in 0..4 {
                tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
                far.read_exact(&mut some).await.expect("bytes");
            }
            far
        };
        let (written, mut far) = tokio::join!(stream.write_all(&[7; 64]), reading);
        let error = written.expect_err("the reader stopped");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), 4 * (TIMEOUT - Duration::from_secs(1)) + TIMEOUT);
        // What was taken before is whole, and the other direction was never timed.
        far.write_all(b"late").await.expect("room");
        let mut late = [0; 4];
        stream.read_exact(&mut late).await.expect("bytes");
        assert_eq!(&late, b"late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_nothing_to_write_may_be_quiet() {
        let (near, mut far) = duplex(8);
        let mut stream = Impatient::new(near, TIMEOUT);
        stream.write_all(b"one").await.expect("room");
        tokio::time::sleep(10 * TIMEOUT).await;
        stream.write_all(b"two").await.expect("room");
        let mut six = [0; 6];
        far.read_exact(&mut six).await.expect("bytes");
        assert_eq!(&six, b"onetwo");
    }
}
