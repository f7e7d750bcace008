//! What a CNI's socket load balancing does: a BPF program in a control group gives each IPv4 connection of the processes
//! there another address, inside connect(2).

#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper in the crates that are here already")]

use std::fs::File;
use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_INET4_CONNECT: u32 = 10;

/// A control group; it goes when dropped, which needs its processes to have ended.
pub(crate) struct Translated(PathBuf);

/// `None`: no control groups of version 2 are mounted here.
pub(crate) fn translated(name: &str, to: Ipv4Addr) -> Option<Translated> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(at))
    })?;
    let group = Translated(root.join(format!("umbra-test-{name}-{}", std::process::id())));
    std::fs::create_dir(&group.0).unwrap();
    attach(&load(to).unwrap(), &group.0).unwrap();
    Some(group)
}

impl Translated {
    /// A process that writes its number there is in the group.
    pub(crate) fn procs(&self) -> String {
        self.0.join("cgroup.procs").display().to_string()
    }
}

impl Drop for Translated {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// An instruction: operation, registers, offset, immediate value.
fn instruction(operation: u8, registers: u8, offset: i16, value: [u8; 4]) -> [u8; 8] {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = value;
    [operation, registers, low, high, a, b, c, d]
}

fn load(to: Ipv4Addr) -> Result<OwnedFd> {
    let program: Vec<u8> = [
        // r2 = address; context->user_ip4 = r2; r0 = 1 (go on); exit
        instruction(0xb4, 0x02, 0, to.octets()),
        instruction(0x63, 0x21, 4, [0; 4]),
        instruction(0xb4, 0x00, 0, 1_i32.to_ne_bytes()),
        instruction(0x95, 0, 0, [0; 4]),
    ]
    .concat();
    let licence = c"GPL";
    let mut attributes = [0_u8; 72];
    let mut put = |at: usize, bytes: &[u8]| attributes[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &PROG_TYPE_CGROUP_SOCK_ADDR.to_ne_bytes());
    put(4, &((program.len() / 8) as u32).to_ne_bytes());
    put(8, &(program.as_ptr() as u64).to_ne_bytes());
    put(16, &(licence.as_ptr() as u64).to_ne_bytes());
    // expected_attach_type
    put(68, &CGROUP_INET4_CONNECT.to_ne_bytes());
    let descriptor = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn attach(program: &OwnedFd, group: &Path) -> Result<()> {
    let group = File::open(group)?;
    let words = [group.as_raw_fd() as u32, program.as_raw_fd() as u32, CGROUP_INET4_CONNECT, 0];
    let attributes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bpf(PROG_ATTACH, &attributes).map(drop)
}

fn bpf(command: i32, attributes: &[u8]) -> Result<RawFd> {
    // SAFETY: the kernel reads as many bytes as it is told, and what they point to lives in our callers' frames until
    // the call returns; it keeps none of it.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    RawFd::try_from(done).ok().filter(|done| *done >= 0).ok_or_else(Error::last_os_error)
}
