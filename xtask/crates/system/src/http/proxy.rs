//! The proxy of a request, from the variables that curl reads. Requests to this machine use none.
//!
//! The variables: <https://everything.curl.dev/usingcurl/proxies/env.html>.

use crate::http::Url;
use crate::http::policy::{is_loopback, origin};
use gangplank_model::error::{Result, usage};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The proxies set by variables.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Variable>,
    https: Option<Variable>,
    no_proxy: Vec<String>,
}

/// A variable and its value, which may contain a password.
#[derive(Clone)]
struct Variable(String, String);

/// The proxy of a request. Its URL may contain a password, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The variable that sets it.
    pub variable: String,
    /// The URL, with its login.
    pub url: Url,
}

impl Proxy {
    /// `the proxy http://10.0.0.1:3128 (HTTPS_PROXY)`, without a login.
    pub fn label(&self) -> String {
        format!("the proxy {} ({})", origin(&self.url), self.variable)
    }

    /// The hint for a proxy that does not connect to a URL.
    pub fn hint(&self, to: Option<&Url>) -> String {
        let host = to.and_then(Url::host_str).unwrap_or("HOST");
        format!("start the proxy, correct {}, or set NO_PROXY={host} to go without it", self.variable)
    }
}

impl Proxies {
    /// Reads the variables. Small letters come first, as in curl.
    pub fn from_vars(vars: &BTreeMap<String, String>) -> Self {
        let var = |name: &str| {
            let names = [name.to_ascii_lowercase(), name.to_owned()];
            names.into_iter().find_map(|name| {
                let value = vars.get(&name)?.trim();
                (!value.is_empty()).then(|| Variable(name, value.to_owned()))
            })
        };
        let no_proxy = var("NO_PROXY").map(|Variable(_, hosts)| hosts).unwrap_or_default();
        let no_proxy = no_proxy.split([',', ' ']).map(str::trim).filter(|host| !host.is_empty());
        Self {
            http: var("HTTP_PROXY").or_else(|| var("ALL_PROXY")),
            https: var("HTTPS_PROXY").or_else(|| var("ALL_PROXY")),
            no_proxy: no_proxy.map(str::to_ascii_lowercase).collect(),
        }
    }

    /// The proxy for a URL.
    pub fn for_url(&self, url: &Url) -> Result<Option<Proxy>> {
        let named = if url.scheme() == "https" { &self.https } else { &self.http };
        let Some(Variable(variable, text)) = named.as_ref().filter(|_| !self.is_direct(url)) else { return Ok(None) };
        let wrong =
            |reason: &str| usage(format!("{variable} {reason}")).hint(format!("set {variable}=http://HOST:PORT"));
        let full = if text.contains("://") { text.clone() } else { format!("http://{text}") };
        let url = Url::parse(&full).map_err(|_| wrong("is not the URL of a proxy"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return wrong(&format!("names a proxy with the scheme `{}`, which is not supported", url.scheme())).err();
        }
        Ok(Some(Proxy { variable: variable.clone(), url }))
    }

    fn is_direct(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        is_loopback(&host) || self.no_proxy.iter().any(|rule| rule_matches(rule, &host, url.port_or_known_default()))
    }
}

/// Whether an entry of `NO_PROXY` matches a host: `*`, a domain and its subdomains, an address, a network, each with an
/// optional port.
fn rule_matches(rule: &str, host: &str, port: Option<u16>) -> bool {
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_owned();
    let (rule, wanted) = match rule.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
        _ => (rule, None),
    };
    if wanted.is_some() && wanted != port {
        return false;
    }
    let (rule, host) = (bare(rule), bare(host));
    if let Ok(ip) = host.parse::<IpAddr>() {
        let (network, bits) =
            rule.split_once('/').map_or((rule.as_str(), None), |(net, bits)| (net, bits.parse().ok()));
        return rule == "*" || network.parse().is_ok_and(|network| is_in(ip, network, bits, rule.contains('/')));
    }
    let domain = rule.trim_start_matches('*').trim_start_matches('.');
    rule == "*" || !domain.is_empty() && (host == domain || host.ends_with(&format!(".{domain}")))
}

fn is_in(ip: IpAddr, network: IpAddr, bits: Option<u32>, is_network: bool) -> bool {
    let (ip, network, width) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u128::from(ip.to_bits()), u128::from(network.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    match (is_network, bits) {
        (false, _) => ip == network,
        (true, Some(bits)) if bits <= width => (ip ^ network).checked_shr(width - bits).unwrap_or(0) == 0,
        (true, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::error::{Kind, hint_of, kind_of};

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        Proxies::from_vars(&vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn proxy_of_a_url_is_named_by_its_scheme() {
        for (vars, url, want) in [
            (&[][..], "https://s3.example.org", None),
            (&[("HTTPS_PROXY", "http://p:1")], "https://s3.example.org", Some("http://p:1 (HTTPS_PROXY)")),
            (&[("HTTPS_PROXY", "http://p:1")], "http://s3.example.org", None),
            (&[("HTTP_PROXY", "p:1")], "http://s3.example.org", Some("http://p:1 (HTTP_PROXY)")),
            (&[("ALL_PROXY", "http://p:1")], "https://s3.example.org", Some("http://p:1 (ALL_PROXY)")),
            (
                &[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://ana:sesame@lower:1")],
                "https://s3.example.org",
                Some("http://lower:1 (https_proxy)"),
            ),
            (&[("HTTPS_PROXY", " ")], "https://s3.example.org", None),
            (&[("HTTP_PROXY", "http://p:1")], "http://127.0.0.1:9000", None),
            (&[("ALL_PROXY", "http://p:1")], "https://[::1]:9000", None),
            (&[("ALL_PROXY", "socks5://p:1")], "http://localhost:9000", None),
        ] {
            let proxy = proxies(vars).for_url(&Url::parse(url).unwrap()).unwrap();
            assert_eq!(proxy.map(|it| it.label()), want.map(|it| format!("the proxy {it}")), "{vars:?} {url}");
        }
    }

    #[test]
    fn proxy_with_another_scheme_is_refused() {
        for value in ["socks5://p:1", "http://", "http://a b"] {
            let found = proxies(&[("HTTPS_PROXY", value)]).for_url(&Url::parse("https://s3.example.org").unwrap());
            let error = found.err().unwrap();
            assert_eq!(kind_of(&error), Kind::Usage, "{value}");
            assert!(hint_of(&error).unwrap().contains("HTTPS_PROXY=http://"), "{value}");
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_addresses_and_networks() {
        for (rule, host, direct) in [
            ("*", "s3.example.org", true),
            ("example.org", "s3.example.org", true),
            (".example.org", "s3.example.org", true),
            ("*.example.org", "s3.example.org", true),
            ("example.org", "example.org", true),
            ("example.org", "badexample.org", false),
            ("other.org, Example.ORG", "s3.example.org", true),
            ("s3.example.org:9000", "s3.example.org:9000", true),
            ("s3.example.org:9000", "s3.example.org:9001", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/33", "10.1.2.3", false),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("1.2.3", "10.1.2.3", false),
            ("fd00::/8", "[fd00::1]", true),
            ("[fd00::1]:9000", "[fd00::1]:9000", true),
            ("fd00::2", "[fd00::1]", false),
            ("", "s3.example.org", false),
            (".", "s3.example.org", false),
        ] {
            let it = proxies(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", rule)]);
            let proxy = it.for_url(&Url::parse(&format!("http://{host}/x")).unwrap()).unwrap();
            assert_eq!(proxy.is_none(), direct, "{rule} {host}");
        }
    }
}
