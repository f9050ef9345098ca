//! A socket as bytes in and bytes out without waiting, plain or through TLS.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::net::TcpStream;

/// One client's socket.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    tls: Option<RefCell<Box<ServerConnection>>>,
}

/// `TcpStream` as the blocking traits rustls reads and writes through; "would block" passes up.
struct Unblocked<'a>(&'a TcpStream);

impl Read for Unblocked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Unblocked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    /// Wraps a socket whose TLS handshake, if any, is done.
    pub fn new(socket: TcpStream, mut tls: Option<Box<ServerConnection>>) -> Self {
        if let Some(tls) = &mut tls {
            // It is given a frame whole, once what was before is gone: the queue in front of it is what has a limit.
            tls.set_buffer_limit(None);
        }
        Self { socket, tls: tls.map(RefCell::new) }
    }

    /// The same socket, registered with the reactor of this thread.
    ///
    /// # Errors
    /// When one reactor does not let go of it or the other does not take it.
    pub fn moved_here(self) -> io::Result<Self> {
        Ok(Self { socket: TcpStream::from_std(self.socket.into_std()?)?, tls: self.tls })
    }

    /// Registers for input.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(context)
    }

    /// Registers for room to write.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(context)
    }

    /// Waits for input. Cancel safe.
    ///
    /// # Errors
    /// As the socket's.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads what there is; `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet; otherwise the connection is broken.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.socket.try_read(buffer);
        };
        let mut tls = tls.borrow_mut();
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                answer => return answer,
            }
            if tls.read_tls(&mut Unblocked(&self.socket))? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }

    /// Whether there is input that was decrypted already: no readiness of the socket will announce it.
    pub fn holds_input(&self) -> bool {
        let plaintext = |tls: &RefCell<Box<ServerConnection>>| {
            tls.borrow_mut().process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
        };
        self.tls.as_ref().is_some_and(plaintext)
    }

    /// Writes what the socket takes now. Through TLS it is all or nothing: `WouldBlock` until earlier bytes are gone.
    ///
    /// # Errors
    /// `WouldBlock` when nothing was taken; otherwise the connection is broken.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.socket.try_write(bytes);
        };
        let mut tls = tls.borrow_mut();
        drain(&mut tls, &self.socket)?;
        tls.writer().write_all(bytes)?;
        match drain(&mut tls, &self.socket) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(bytes.len()),
        }
    }

    /// As [`Wire::try_write`] for several pieces in one call; TLS takes the first alone.
    ///
    /// # Errors
    /// As [`Wire::try_write`].
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.tls, pieces) {
            (Some(_), [first, ..]) => self.try_write(first),
            _ => self.socket.try_write_vectored(pieces),
        }
    }

    /// Whether encrypted bytes still wait for the socket.
    pub fn owes(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().wants_write())
    }

    /// Writes encrypted bytes that wait.
    ///
    /// # Errors
    /// As [`Wire::try_write`].
    pub fn drain(&self) -> io::Result<()> {
        self.tls.as_ref().map_or(Ok(()), |tls| drain(&mut tls.borrow_mut(), &self.socket))
    }

    /// Says goodbye in TLS, as far as the socket takes it.
    pub fn end(&self) {
        if let Some(tls) = &self.tls {
            let mut tls = tls.borrow_mut();
            tls.send_close_notify();
            // The connection is over: a goodbye that does not fit is not worth waiting for.
            let _best_effort = drain(&mut tls, &self.socket);
        }
    }
}

fn drain(tls: &mut ServerConnection, socket: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut Unblocked(socket))?;
    }
    Ok(())
}
