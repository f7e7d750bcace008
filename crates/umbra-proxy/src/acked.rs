//! How much of what was written the peer's kernel has taken.
//!
//! A request of which no byte was acknowledged when its connection ended was, in all likelihood, not processed, whatever
//! its method: the peer had closed the connection before it arrived. That is what makes a POST safe to send again. It is
//! not strictly a proof: a kernel may delay its acknowledgement (by 40 ms, up to 200), and a peer that reads a request and
//! dies of it within that time, without a byte of an answer, looks the same.
#![allow(unsafe_code, reason = "TCP_INFO has no safe wrapper in std, tokio or socket2")]

use std::os::fd::{AsFd, AsRawFd};

/// Where `tcpi_bytes_acked` stands in `struct tcp_info` (linux/tcp.h, since Linux 4.1): 8 bytes, 24 words of 32 bits,
/// and two of 64 bits come before it. The layout is part of the kernel's interface and only ever grows.
const BYTES_ACKED: std::ops::Range<usize> = 120..128;

/// Bytes of ours that the peer has acknowledged, or `None` when the kernel does not say. Works on a connection that was
/// reset, too.
pub(crate) fn bytes_acked(socket: &impl AsFd) -> Option<u64> {
    let mut info = [0u8; BYTES_ACKED.end];
    let mut length = libc::socklen_t::try_from(info.len()).ok()?;
    // SAFETY: the descriptor is borrowed for the call; `info` and `length` are live, and `length` is the size of `info`,
    // which the kernel does not write past.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done != 0 || (length as usize) < info.len() {
        return None;
    }
    // The SYN counts as one.
    let acked = u64::from_ne_bytes(info[BYTES_ACKED].try_into().ok()?);
    Some(acked.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_arrives_is_acknowledged_and_what_meets_a_closed_socket_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (mut theirs, _) = listener.accept().expect("a connection");
        ours.write_all(b"hello").expect("a reader");
        theirs.read_exact(&mut [0; 5]).expect("all of it");
        assert_eq!(bytes_acked(&ours), Some(5));
        drop(theirs);
        ours.write_all(b"too late").expect("the kernel takes it");
        let mut byte = [0];
        // The end first, or the reset.
        while matches!(ours.read(&mut byte), Ok(1..)) {}
        assert_eq!(bytes_acked(&ours), Some(5));
    }
}
