//! The TCP sockets of this host over IPv4, as the kernel lists them.

/// One line of `/proc/self/net/tcp`.
pub(crate) struct Socket {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) state: State,
    /// Bytes that the other end has not acknowledged.
    pub(crate) unacknowledged: u64,
    /// Whether somebody has a descriptor of it.
    pub(crate) is_held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    TimeWait,
    Listening,
    Other,
}

pub(crate) fn all() -> Vec<Socket> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table.lines().skip(1).map(Socket::of_line).collect()
}

impl Socket {
    fn of_line(line: &str) -> Self {
        let columns: Vec<_> = line.split_whitespace().collect();
        let port = |address: &str| {
            let (_, port) = address.split_once(':').unwrap();
            u16::from_str_radix(port, 16).unwrap()
        };
        let (to_send, _) = columns[4].split_once(':').unwrap();
        Self {
            local_port: port(columns[1]),
            remote_port: port(columns[2]),
            state: match columns[3] {
                "02" => State::SynSent,
                "06" => State::TimeWait,
                "0A" => State::Listening,
                _ => State::Other,
            },
            unacknowledged: u64::from_str_radix(to_send, 16).unwrap(),
            // Without a descriptor it has no inode.
            is_held: columns[9] != "0",
        }
    }
}
