//! Descriptors that the guard holds until its end, handed over before its spec.
//!
//! Over the socket and not by inheritance: other processes are started at the same time, and none of
//! them, the engine least of all, may keep a copy.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One for each GPU of a trial, and no machine has more.
const MOST: usize = 64;
/// There is always one byte, also where there is nothing to hand over.
const GREETING: &[u8] = b"k";

pub(super) fn send(socket: impl AsFd, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    if !keep.is_empty() && !buffer.push(SendAncillaryMessage::ScmRights(keep)) {
        return Err(io::Error::other("too many descriptors for one guard"));
    }
    sendmsg(socket, &[IoSlice::new(GREETING)], &mut buffer, SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(super) fn receive(socket: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut buffer = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut read = [IoSliceMut::new(&mut byte)];
    let got = recvmsg(socket, &mut read, &mut buffer, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut kept = Vec::new();
    for message in buffer.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            kept.extend(descriptors);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_and_end_with_the_one_who_keeps_them() {
        let (here, there) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(&here, &[writer.as_fd()]).unwrap();
        drop(writer);
        let kept = receive(&there).unwrap();
        assert_eq!(kept.len(), 1);
        drop(kept);
        let mut rest = String::new();
        let mut reader = reader;
        assert_eq!(io::Read::read_to_string(&mut reader, &mut rest).unwrap(), 0);
        send(&here, &[]).unwrap();
        assert!(receive(&there).unwrap().is_empty());
    }
}
