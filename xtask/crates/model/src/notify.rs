//! Notifications of an env: recipients, kinds and texts.
//!
//! A webhook gets a JSON document, signed as in Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>), which several
//! languages have libraries for. Slack gets a text, as its incoming webhooks expect
//! (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).

use crate::history::Verb;
use crate::release::id::ReleaseId;
use crate::release::manifest::CiJob;
use serde::Serialize;
use serde_json::{Value, json};

/// The longest text of a message, in characters. Slack recommends at most 4,000.
const TEXT_MAX: usize = 3000;
/// The longest reason in a text, in characters.
const REASON_MAX: usize = 500;

/// A recipient of notifications of an env.
///
/// ```
/// use gangplank_model::notify::{Notice, NoticeKind, Notify};
///
/// const TEAM: Notify = Notify::slack("${SLACK_WEBHOOK_URL}").on(&[NoticeKind::Failed, NoticeKind::Reverted]).text(words);
///
/// fn words(notice: &Notice) -> String {
///     format!("{} in {}, see the runbook", notice.kind.as_str(), notice.env)
/// }
/// # assert_eq!(TEAM.on.len(), 2);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Notify {
    /// The recipient.
    pub to: Recipient,
    /// The kinds that it gets.
    pub on: &'static [NoticeKind],
    /// The text of a notice.
    pub text: fn(&Notice) -> String,
}

/// The kind and URL of a recipient. A value may contain `${NAME}`, or `${NAME:-}` to skip the recipient where the
/// variable is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// A server that gets a signed JSON document.
    Webhook {
        /// Its URL: https, or this machine.
        url: &'static str,
        /// The key of the signature: `whsec_` and 24 to 64 bytes in base64.
        secret: &'static str,
    },
    /// A channel in Slack.
    Slack {
        /// The URL of an incoming webhook, which is a secret.
        url: &'static str,
    },
}

impl Recipient {
    /// `webhook` or `slack`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
        }
    }

    /// Its URL and key as main.rs has them.
    pub fn variables(&self) -> String {
        match self {
            Self::Webhook { url, secret } => format!("{url} or {secret}"),
            Self::Slack { url } => (*url).to_owned(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// A release went live by a deploy or a promotion.
    Deployed,
    /// An older release went live by a rollback.
    RolledBack,
    /// A deploy or rollback failed after a host was switched, and everything was reverted.
    Reverted,
    /// A deploy or rollback failed: nothing was switched, or it could not be reverted.
    Failed,
    /// A release waits for an approval.
    ApprovalWanted,
    /// `notify --test`
    Test,
}

impl NoticeKind {
    /// All kinds that a recipient gets by default.
    pub const ALL: &[Self] = &[Self::Deployed, Self::RolledBack, Self::Reverted, Self::Failed, Self::ApprovalWanted];

    /// The word of the JSON document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::RolledBack => "rolled-back",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
            Self::ApprovalWanted => "approval-wanted",
            Self::Test => "test",
        }
    }
}

/// Something that happened in an env.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What.
    #[serde(skip)]
    pub kind: NoticeKind,
    /// When.
    #[serde(skip)]
    pub at: jiff::Timestamp,
    /// Name of the app.
    pub app: String,
    /// The env.
    pub env: String,
    /// The command.
    pub verb: Verb,
    /// The release that it is about.
    pub release: Option<ReleaseId>,
    /// The release that was live before.
    pub from: Option<ReleaseId>,
    /// Full SHA of the release's commit, if known.
    pub commit: Option<String>,
    /// The subject of the commit, if the checkout has it.
    pub subject: Option<String>,
    /// Who did it.
    pub by: String,
    /// The reason that was given, or that of a failure.
    pub reason: Option<String>,
    /// Whether a host has to be repaired by hand: the deploy failed and could not be reverted.
    pub needs_repair: bool,
    /// The CircleCI job.
    pub ci: Option<CiJob>,
}

impl Notify {
    /// A channel in Slack, by the URL of an incoming webhook.
    pub const fn slack(url: &'static str) -> Self {
        Self { to: Recipient::Slack { url }, on: NoticeKind::ALL, text: Notice::text }
    }

    /// A server that gets JSON, and the key of its signature.
    pub const fn webhook(url: &'static str, secret: &'static str) -> Self {
        Self { to: Recipient::Webhook { url, secret }, on: NoticeKind::ALL, text: Notice::text }
    }

    /// Only these kinds.
    #[must_use]
    pub const fn on(self, kinds: &'static [NoticeKind]) -> Self {
        Self { on: kinds, ..self }
    }

    /// Other words. For Slack the texts of the notice are escaped already.
    #[must_use]
    pub const fn text(self, text: fn(&Notice) -> String) -> Self {
        Self { text, ..self }
    }

    /// Whether the recipient gets a kind. A test is for every recipient.
    pub fn wants(&self, kind: NoticeKind) -> bool {
        kind == NoticeKind::Test || self.on.contains(&kind)
    }

    /// The document for the recipient.
    pub fn document(&self, notice: &Notice) -> Value {
        match self.to {
            Recipient::Slack { .. } => json!({ "text": cut(&(self.text)(&notice.for_slack()), TEXT_MAX) }),
            Recipient::Webhook { .. } => {
                let mut data = json!(notice);
                data["text"] = cut(&(self.text)(notice), TEXT_MAX).into();
                json!({ "type": notice.kind.as_str(), "timestamp": notice.at.to_string(), "data": data })
            }
        }
    }
}

impl Notice {
    /// The text that is sent by default: `shop: prod runs 1a2b3c4 (Prices are in euros), before 9d8c7b6. By ana`.
    pub fn text(&self) -> String {
        let Self { app, env, by, .. } = self;
        let short = |id: &Option<ReleaseId>| id.as_ref().map_or("no release".to_owned(), |id| id.short().to_owned());
        let subject = self.subject.as_ref().map_or(String::new(), |subject| format!(" ({subject})"));
        let release = format!("{}{subject}", short(&self.release));
        let verb = self.verb.as_str();
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!(": {}", cut(reason, REASON_MAX)));
        let what = match (self.kind, self.needs_repair) {
            (NoticeKind::Deployed, _) => format!("{env} runs {release}, before {}{reason}", short(&self.from)),
            (NoticeKind::RolledBack, _) => {
                format!("{env} was rolled back from {} to {release}{reason}", short(&self.from))
            }
            (NoticeKind::Reverted, _) => format!("{verb} of {release} to {env} failed and was reverted{reason}"),
            (NoticeKind::Failed, true) => {
                format!("{env} NEEDS REPAIR. {verb} of {release} failed and could not be reverted{reason}")
            }
            (NoticeKind::Failed, false) => format!("{verb} of {release} to {env} failed{reason}"),
            (NoticeKind::ApprovalWanted, _) => format!("{env} waits for an approval of {release}{reason}"),
            (NoticeKind::Test, _) => format!("a test of the notifications of {env}"),
        };
        let url = self.ci.as_ref().and_then(|ci| ci.url.as_deref()).map_or(String::new(), |url| format!(", {url}"));
        format!("{app}: {what}. By {by}{url}")
    }

    /// The same with its texts escaped for Slack, so that a commit's subject cannot mention a channel.
    fn for_slack(&self) -> Self {
        let escaped = |text: &String| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        Self {
            app: escaped(&self.app),
            env: escaped(&self.env),
            commit: self.commit.as_ref().map(escaped),
            subject: self.subject.as_ref().map(escaped),
            by: escaped(&self.by),
            reason: self.reason.as_ref().map(escaped),
            ci: self.ci.clone().map(|ci| CiJob { url: ci.url.as_ref().map(escaped), ..ci }),
            ..self.clone()
        }
    }
}

/// The start of a text.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: NoticeKind) -> Notice {
        Notice {
            kind,
            at: "2026-08-22T10:15:00Z".parse().unwrap(),
            app: "shop".into(),
            env: "prod".into(),
            verb: Verb::Deploy,
            release: Some("20260822T101500-1a2b3c4".parse().unwrap()),
            from: Some("20260820T091500-5d6e7f8".parse().unwrap()),
            commit: None,
            subject: Some("Prices <!channel> & more".into()),
            by: "ana@laptop".into(),
            reason: None,
            needs_repair: false,
            ci: None,
        }
    }

    #[test]
    fn text_says_what_happened_where_and_by_whom() {
        let failed =
            |needs_repair| Notice { reason: Some("no answer".into()), needs_repair, ..notice(NoticeKind::Failed) };
        let release = "1a2b3c4 (Prices <!channel> & more)";
        for (notice, want) in [
            (notice(NoticeKind::Deployed), format!("prod runs {release}, before 5d6e7f8")),
            (notice(NoticeKind::RolledBack), format!("prod was rolled back from 5d6e7f8 to {release}")),
            (notice(NoticeKind::Reverted), format!("deploy of {release} to prod failed and was reverted")),
            (failed(false), format!("deploy of {release} to prod failed: no answer")),
            (
                failed(true),
                format!("prod NEEDS REPAIR. deploy of {release} failed and could not be reverted: no answer"),
            ),
            (notice(NoticeKind::ApprovalWanted), format!("prod waits for an approval of {release}")),
            (notice(NoticeKind::Test), "a test of the notifications of prod".to_owned()),
        ] {
            assert_eq!(notice.text(), format!("shop: {want}. By ana@laptop"));
        }
    }

    #[test]
    fn document_for_slack_cannot_mention_a_channel() {
        let document = Notify::slack("https://x").document(&notice(NoticeKind::Deployed));
        let text = document["text"].as_str().unwrap();
        assert!(text.contains("Prices &lt;!channel&gt; &amp; more"), "{text}");
        assert_eq!(document.as_object().unwrap().len(), 1);
    }

    #[test]
    fn document_for_a_webhook_has_type_time_and_data() {
        let words = |notice: &Notice| format!("{} {}", notice.env, "x".repeat(5000));
        let document = Notify::webhook("https://x", "s").text(words).document(&notice(NoticeKind::Deployed));
        assert_eq!((&document["type"], &document["timestamp"]), (&"deployed".into(), &"2026-08-22T10:15:00Z".into()));
        assert_eq!(document["data"]["release"], "20260822T101500-1a2b3c4");
        let text = document["data"]["text"].as_str().unwrap();
        assert!(text.starts_with("prod xxx") && text.chars().count() == TEXT_MAX + 1);
    }

    #[test]
    fn recipient_gets_its_kinds_and_every_test() {
        let failures = Notify::slack("https://x").on(&[NoticeKind::Failed]);
        assert!(failures.wants(NoticeKind::Failed) && failures.wants(NoticeKind::Test));
        assert!(!failures.wants(NoticeKind::Deployed));
        assert!(NoticeKind::ALL.iter().all(|kind| Notify::slack("https://x").wants(*kind)));
    }
}
