//! The tools compared by the fleet bench: our own `deploy` and others, each a short script.
//!
//! They start from a finished build, and must end with `current` at the new release.

/// Another tool.
pub struct Peer {
    /// Its name on the command line, in the report, and of its directory on a host.
    pub name: &'static str,
    /// Programs that it needs on PATH.
    pub programs: &'static [&'static str],
    /// How to install them.
    pub install: &'static str,
    /// What `sh` runs, with its files as the current directory. Variables: `MACHINES` (names of the hosts), `FLEET`
    /// (`$FLEET/$host/srv/$NAME` is the directory on a host), `NAME`, `RELEASE`, `PREVIOUS` (empty for the first),
    /// `STAGE` (the built directory), `ARCHIVE` (the same as `tar.gz`), `SSH_CONFIG`.
    pub script: &'static str,
    /// Additional files.
    pub files: &'static [(&'static str, &'static str)],
}

/// The name of our own.
pub const OURS: &str = "ours";

const OPENSSH: &str = "apt-get install openssh-client";

/// All other tools.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "scp",
        programs: &["scp", "ssh"],
        install: OPENSSH,
        script: include_str!("baselines/scp.sh"),
        files: &[],
    },
    Peer {
        name: "tar-ssh",
        programs: &["ssh"],
        install: OPENSSH,
        script: include_str!("baselines/tar-ssh.sh"),
        files: &[],
    },
    Peer {
        name: "rsync",
        programs: &["rsync", "ssh"],
        install: "apt-get install rsync",
        script: include_str!("baselines/rsync.sh"),
        files: &[],
    },
    Peer {
        name: "rsync-checked",
        programs: &["rsync", "ssh"],
        install: "apt-get install rsync",
        script: include_str!("baselines/rsync-checked.sh"),
        files: &[],
    },
    Peer {
        name: "capistrano",
        programs: &["cap"],
        install: "apt-get install ruby; gem install capistrano",
        script: include_str!("baselines/capistrano.sh"),
        files: &[
            ("Capfile", include_str!("baselines/Capfile")),
            ("config/deploy.rb", include_str!("baselines/deploy.rb")),
            ("config/deploy/bench.rb", include_str!("baselines/bench.rb")),
        ],
    },
    Peer {
        name: "ansible",
        programs: &["ansible-playbook"],
        install: "pip install ansible-core",
        script: include_str!("baselines/ansible.sh"),
        files: &[("site.yml", include_str!("baselines/site.yml"))],
    },
    Peer {
        name: "slipway",
        programs: &["slipway"],
        install: "cargo install slipway",
        script: include_str!("baselines/slipway.sh"),
        files: &[],
    },
];

/// The peers that take part, and the missing ones.
pub fn peers<'a>(
    against: &'a [String],
    is_there: &'a dyn Fn(&str) -> bool,
) -> impl Iterator<Item = (&'static Peer, bool)> + 'a {
    let wanted = |peer: &&Peer| against.is_empty() || against.iter().any(|name| name == peer.name);
    PEERS.iter().filter(wanted).map(|peer| (peer, peer.programs.iter().all(|program| is_there(program))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_of_selection_are_listed_with_missing_ones_marked() {
        let chosen = |against: &[&str], missing: &str| {
            let against: Vec<_> = against.iter().map(|name| (*name).to_owned()).collect();
            let chosen = |(peer, there): (&Peer, bool)| format!("{}{}", peer.name, if there { "" } else { "?" });
            peers(&against, &|program| program != missing).map(chosen).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(chosen(&[], ""), "scp tar-ssh rsync rsync-checked capistrano ansible slipway");
        assert_eq!(chosen(&["rsync", "scp"], "rsync"), "scp rsync?");
        assert_eq!(chosen(&[], "ssh"), "scp? tar-ssh? rsync? rsync-checked? capistrano ansible slipway");
    }
}
