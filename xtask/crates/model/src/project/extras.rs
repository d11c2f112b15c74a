//! Checks of what an env states besides its targets and its service.

use crate::error::Result;
use crate::notify::{Notify, Recipient};
use crate::project::{Check, Env, Service, Transfer, vars, word, wrong};
use crate::store_url::is_site;

impl Env {
    pub(super) fn validate_extras(&self) -> Result<()> {
        let env = self.name;
        let inside = |path: &str| {
            let mut parts = path.trim_end_matches('/').split('/');
            let plain = parts.all(|part| !matches!(part, "" | "." | ".." | ".gangplank"));
            plain && !path.contains(['\n', '\0'])
        };
        if let Some(bad) = self.shared.iter().find(|path| !inside(path)) {
            return wrong(format!("env `{env}` shares `{bad}`"), "name a path inside the release, e.g. \"uploads/\"");
        }
        let name = |path: &'static str| path.trim_end_matches('/');
        let nested = |a: &str, b: &str| a == b || b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
        for (n, one) in self.shared.iter().enumerate() {
            let others = self.shared.iter().enumerate().filter(|(other, _)| *other != n);
            if let Some((_, other)) =
                others.map(|(at, other)| (at, name(other))).find(|(_, other)| nested(name(one), other))
            {
                return wrong(format!("env `{env}` shares `{other}` in `{one}`"), "list only the outer one");
            }
        }
        for (n, hook) in self.hooks.iter().enumerate() {
            if !word(hook.name) || self.hooks[..n].iter().any(|other| other.name == hook.name) {
                return wrong(
                    format!("env `{env}` has a hook `{}`", hook.name),
                    "give each hook its own name of letters, digits, `-` and `_`",
                );
            }
        }
        self.validate_site()?;
        self.notify.iter().try_for_each(|notify| notify.validate(env))?;
        if self.max_unavailable == Some(0) {
            return wrong(format!("env `{env}` has `max_unavailable` 0"), "set `max_unavailable` to 1 or more");
        }
        Ok(())
    }
}

impl Env {
    /// A site has no processes, and no directory that releases share.
    fn validate_site(&self) -> Result<()> {
        let Some(site) = self.targets.iter().find(|url| is_site(url)) else { return Ok(()) };
        let env = self.name;
        let (what, hint) = if !self.targets.iter().all(|url| is_site(url)) {
            ("other targets too", "give them an env of their own")
        } else if !matches!(self.service, Service::None) {
            ("a service", "remove `service`")
        } else if !self.shared.is_empty() {
            ("shared files", "remove `shared`")
        } else if matches!(self.health.check, Check::Command(_)) {
            ("a health check that is a command", "use Check::Http")
        } else if self.transfer == Transfer::Pull {
            ("`transfer: Transfer::Pull`", "remove it")
        } else {
            return Ok(());
        };
        wrong(format!("env `{env}` has the site {site} and {what}"), hint)
    }
}

impl Notify {
    fn validate(&self, env: &str) -> Result<()> {
        let (Recipient::Webhook { url, .. } | Recipient::Slack { url }) = self.to;
        vars::validate(url)?;
        if url.contains("//hooks.slack.com/") {
            return wrong(
                format!("env `{env}` has the URL of a Slack webhook in main.rs, where everyone can read it"),
                "put it into a context of CircleCI and write Notify::slack(\"${SLACK_WEBHOOK_URL}\")",
            );
        }
        if let Recipient::Webhook { secret, .. } = self.to {
            vars::validate(secret)?;
            if !secret.contains("${") {
                return wrong(
                    format!("env `{env}` has the key of a webhook in main.rs, where everyone can read it"),
                    "put it into a context of CircleCI and write \"${WEBHOOK_SECRET}\"",
                );
            }
        }
        Ok(())
    }
}
