//! What the kernel says of a TCP connection of this network namespace.

use anyhow::{Context as _, Result};

/// One end of a connection over IPv4, as `/proc/net/tcp` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpEnd {
    /// Both ends can send.
    pub established: bool,
    /// What its timer waits for: 0 nothing, 1 that something is acknowledged, 2 keepalive (proc_net_tcp.txt).
    pub timer: u8,
}

impl TcpEnd {
    /// The end at `port` of the connection to `peer`, or `None` when the kernel has no such connection (any more). By both
    /// ports: the kernel lets connections to different peers leave from the same one.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn between(port: u16, peer: u16) -> Result<Option<Self>> {
        let table = std::fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
        of_table(&table, port, peer)
    }
}

fn of_table(table: &str, port: u16, peer: u16) -> Result<Option<TcpEnd>> {
    let ends = [port, peer].map(|port| format!(":{port:04X}"));
    for line in table.lines() {
        // sl, local_address, rem_address, st, tx_queue:rx_queue, tr:tm->when
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, _, timer, ..] = columns[..] else { continue };
        if local.ends_with(&ends[0]) && remote.ends_with(&ends[1]) {
            let timer = timer.split(':').next().and_then(|kind| u8::from_str_radix(kind, 16).ok());
            // TCP_ESTABLISHED of include/net/tcp_states.h.
            return Ok(Some(TcpEnd { established: state == "01", timer: timer.context("a timer")? }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_known_by_both_ports() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:9C40 0100007F:1F91 06 00000000:00000000 03:00000100 00000000     0        0 0 3\n\
            1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 02:00000576 00000000     0        0 7 2\n\
            2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 8 1\n";
        let of = |port, peer| of_table(table, port, peer).unwrap();
        assert_eq!(of(40_000, 8080), Some(TcpEnd { established: true, timer: 2 }));
        assert_eq!(of(8080, 40_000), Some(TcpEnd { established: true, timer: 0 }));
        assert_eq!(of(40_000, 8081), Some(TcpEnd { established: false, timer: 3 }));
        assert_eq!(of(8081, 40_000), None);
    }
}
