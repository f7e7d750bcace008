//! `/etc/resolv.conf`, resolv.conf(5): the part that a pod's file uses.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// resolv.conf(5) MAXNS: further servers are ignored.
const MOST_SERVERS: usize = 3;

/// Servers, search list and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// Whom to ask, in order.
    pub servers: Vec<SocketAddr>,
    /// Domains to append to short names, in order.
    pub search: Vec<String>,
    /// Names with fewer dots try the search list first.
    pub ndots: usize,
    /// For one question to one server.
    pub timeout: Duration,
    /// Rounds over all servers.
    pub attempts: u32,
}

impl Default for ResolvConf {
    /// The manual's defaults, with no server.
    fn default() -> Self {
        let timeout = Duration::from_secs(5);
        Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout, attempts: 2 }
    }
}

impl ResolvConf {
    /// Reads a file. An absent one is as good as an empty one: addresses still work without DNS.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Reads the file's text; what it does not know it passes over, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => conf.server(words.next()),
                Some("search") => conf.search = words.map(|word| word.trim_matches('.').to_owned()).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.search.retain(|domain| !domain.is_empty());
        conf
    }

    fn server(&mut self, word: Option<&str>) {
        if let Some(Ok(address)) = word.map(str::parse::<IpAddr>)
            && self.servers.len() < MOST_SERVERS
        {
            self.servers.push(SocketAddr::new(address, 53));
        }
    }

    /// Values above the manual's ceilings are cut to them.
    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The absolute names to try for `host`, in order.
    pub fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}"));
        let mut names: Vec<_> = searched.collect();
        let dots = host.matches('.').count();
        let own = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(own, host.to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
        nameserver 10.96.0.10\noptions ndots:5 timeout:99 edns0\n";

    #[test]
    fn a_pods_file() {
        let conf = ResolvConf::parse(POD);
        assert_eq!(conf.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!(conf.search, ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (5, Duration::from_secs(30), 2));
    }

    #[test]
    fn comments_and_unknown_words_are_passed_over() {
        let conf = ResolvConf::parse(
            "# nameserver 1.1.1.1\nsortlist x\nnameserver nonsense\nnameserver fd00::a ; x",
        );
        assert_eq!(conf.servers, ["[fd00::a]:53".parse().unwrap()]);
        assert_eq!(conf.ndots, 1);
    }

    #[test]
    fn short_names_are_searched_first_and_long_ones_last() {
        let conf = ResolvConf::parse(POD);
        let expected = [
            "sa-logic.default.svc.cluster.local",
            "sa-logic.svc.cluster.local",
            "sa-logic.cluster.local",
            "sa-logic",
        ];
        assert_eq!(conf.candidates("sa-logic"), expected);
        assert_eq!(conf.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(conf.candidates("sa-logic."), ["sa-logic"]);
    }
}
