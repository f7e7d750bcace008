//! Why the kernel's tables are not as they should be, and what to do about it.

use std::io;

/// Why the kernel's table is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The environment's fault: no netlink, or out of memory.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused a batch as a whole; nothing has changed.
    #[error("nftables: {what}: {source}{}", advice(.source))]
    Refused {
        /// The first message that was refused.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel did not acknowledge; a fault of ours.
    #[error("nftables: no acknowledgement from the kernel within 5 s")]
    Silent,
    /// An answer that makes no sense; a fault of ours.
    #[error("nftables: the kernel's answer is not understood: {0}")]
    Answer(String),
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (the proxy needs CAP_NET_ADMIN, and to be the only umbra-proxy on this node)",
        Some(libc::EEXIST) => {
            " (if it is the table, another umbra-proxy runs on this node, or somebody made a table inet umbra: \
             nft delete table inet umbra)"
        }
        _ => "",
    }
}

impl NetlinkError {
    /// What to do when this kernel has not what a table needs, for an error of making one. Kernels before 5.12 refuse
    /// the owner flag as an invalid argument, later ones what they do not know as not supported; without `nf_tables`
    /// the whole batch, or the socket, is refused so, and without one of its modules an object is not found.
    pub(crate) fn cannot(&self) -> Option<&'static str> {
        const NO_TABLES: &str = "this kernel has no nf_tables: load the modules nf_tables, nft_nat, nft_ct and \
            nft_reject_inet on the node, then restart umbra-proxy there";
        const NO_OWNERS: &str = "this kernel has no tables with an owner (Linux 5.12): run umbra on nodes with a newer \
            kernel";
        match self {
            Self::Socket(error) => match error.raw_os_error()? {
                libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT => Some(NO_TABLES),
                _ => None,
            },
            Self::Refused { what, source } => match (*what, source.raw_os_error()?) {
                ("creating the table", libc::EOPNOTSUPP | libc::EINVAL) => Some(NO_OWNERS),
                (_, libc::EOPNOTSUPP | libc::ENOENT | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
                    Some(NO_TABLES)
                }
                _ => None,
            },
            Self::Silent | Self::Answer(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_cannot_is_told_from_what_it_forbids() {
        let refused = |what, code| NetlinkError::Refused { what, source: io::Error::from_raw_os_error(code) };
        let socket = |code| NetlinkError::Socket(io::Error::from_raw_os_error(code));
        let owners =
            [refused("creating the table", libc::EOPNOTSUPP), refused("creating the table", libc::EINVAL)];
        assert!(owners.iter().all(|error| error.cannot().is_some_and(|what| what.contains("5.12"))));
        let tables = [
            socket(libc::EPROTONOSUPPORT),
            refused("the batch", libc::EOPNOTSUPP),
            refused("creating a rule", libc::ENOENT),
        ];
        assert!(tables.iter().all(|error| error.cannot().is_some_and(|what| what.contains("nf_tables"))));
        let others = [
            refused("the batch", libc::EPERM),
            refused("creating the table", libc::EPERM),
            refused("creating the table", libc::EEXIST),
            refused("creating a set", libc::EINVAL),
            socket(libc::ENOMEM),
            NetlinkError::Silent,
        ];
        assert!(others.iter().all(|error| error.cannot().is_none()));
    }
}
