//! Short, unique names for the hosts of a table.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// A name per target: the host without its domain, the full host, the host with user and port, or the URL.
pub fn short(urls: &[String]) -> Vec<String> {
    let ways = [label, host, authority];
    let named = ways.into_iter().map(|way| urls.iter().map(|url| way(url).to_owned()).collect::<Vec<_>>());
    let differ = |names: &Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == urls.len();
    named.into_iter().find(differ).unwrap_or_else(|| urls.to_vec())
}

/// `deploy@web1.example.com:22`; for a local directory, the last part of its path.
fn authority(url: &str) -> &str {
    match url.strip_prefix("ssh://") {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or(url),
    }
}

fn host(url: &str) -> &str {
    let rest = authority(url);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => rest,
    }
}

fn label(url: &str) -> &str {
    let host = host(url);
    let bare = host.trim_matches(['[', ']']);
    if bare.parse::<IpAddr>().is_ok() || !url.starts_with("ssh:") {
        host
    } else {
        host.split('.').next().unwrap_or(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_as_short_as_unique() {
        for (urls, want) in [
            ("ssh://deploy@web1.example.com/srv/app ssh://deploy@web2.example.com:22/srv/app", "web1 web2"),
            ("ssh://web.a.example/srv/app ssh://web.b.example/srv/app", "web.a.example web.b.example"),
            ("ssh://10.0.0.1/srv/app ssh://10.0.0.2/srv/app", "10.0.0.1 10.0.0.2"),
            ("ssh://[::1]:22/srv/app ssh://[::2]/srv/app", "[::1] [::2]"),
            ("ssh://web1:2201/srv/app ssh://web1:2202/srv/app", "web1:2201 web1:2202"),
            ("ssh://web1/srv/a ssh://web1/srv/b", "ssh://web1/srv/a ssh://web1/srv/b"),
            ("file:srv/dev file:/srv/prod.old/", "dev prod.old"),
        ] {
            let urls: Vec<_> = urls.split(' ').map(str::to_owned).collect();
            assert_eq!(short(&urls).join(" "), want);
        }
    }
}
