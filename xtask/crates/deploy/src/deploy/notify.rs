//! Notifies the recipients of an env. A failed notification is a warning: the deploy has ended by then.

use crate::deploy::deployment::Deployment;
use crate::deploy::report::subject;
use crate::deploy::resolve::Catalog;
use crate::tool::Tool;
use gangplank_model::error::{Kind, Result, failed, hint_of, kind_of, usage};
use gangplank_model::history::{Record, Verb};
use gangplank_model::notify::{Notice, NoticeKind, Notify, Recipient};
use gangplank_model::plan::{HostPlan, Step};
use gangplank_model::project::Env;
use gangplank_model::release::id::{ReleaseId, Selector};
use gangplank_system::context::Context;
use gangplank_system::machine::{ci_job, person};
use gangplank_system::webhook;
use gangplank_system::webhook::Key;
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A recipient in the output of `notify`.
#[derive(Debug, Serialize)]
pub struct Notified {
    /// `webhook` or `slack`.
    pub kind: &'static str,
    /// `sent`, `skipped` or `failed`.
    pub status: &'static str,
}

/// `notify ENV`: notifies its recipients that the release of this commit waits for an approval. With `test` the message is
/// a test, and fails if it cannot be sent.
pub fn notify(tool: &Tool, env: &str, test: bool) -> Result<Vec<Notified>> {
    let Tool { ctx, project, .. } = *tool;
    let env = project.env(env)?;
    if env.notify.is_empty() {
        return usage(format!("`notify` of {} is empty", env.name))
            .hint("add Notify::slack(\"${SLACK_WEBHOOK_URL}\") to `notify` in xtask/src/main.rs: docs/notifications.md")
            .err();
    }
    let release = if test { None } else { Some(Catalog::open(tool)?.resolve(None::<&Selector>)?) };
    let kind = if test { NoticeKind::Test } else { NoticeKind::ApprovalWanted };
    let notice = Notice {
        kind,
        at: ctx.now(),
        app: project.app.name.to_owned(),
        env: env.name.to_owned(),
        verb: Verb::Deploy,
        subject: subject(ctx, release.as_ref()),
        commit: release.as_ref().and_then(|id| gangplank_system::git::expand(ctx, id.short_sha())),
        release,
        from: None,
        by: person(ctx),
        reason: None,
        needs_repair: false,
        ci: ci_job(ctx),
    };
    let mut done = Vec::new();
    for recipient in env.notify.iter().filter(|recipient| recipient.wants(kind)) {
        let sent = deliver(ctx, recipient, &notice);
        let status = match &sent {
            Ok(true) => "sent",
            Ok(false) => "skipped",
            Err(_) => "failed",
        };
        if test {
            if !sent? {
                return usage(format!("the test was not sent: {} is empty", recipient.to.variables()))
                    .hint("set the variable; jobs have it from a context")
                    .err();
            }
        } else {
            warn(ctx, env, recipient, sent);
        }
        done.push(Notified { kind: recipient.to.kind(), status });
    }
    Ok(done)
}

impl Deployment<'_> {
    /// Runs a command, and notifies the recipients of this env of its end. A refusal is no failure: the command line has it, and
    /// nothing was tried.
    pub(super) fn notifying<T>(
        &self,
        verb: Verb,
        release: Option<&ReleaseId>,
        dry_run: bool,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let done = run();
        if dry_run {
            return done;
        }
        if let Err(error) = &done
            && !matches!(kind_of(error), Kind::Usage | Kind::Locked | Kind::Stale)
            && !self.pending.is_kept()
        {
            let record = Record { release: release.cloned(), ..self.record(verb, None) };
            self.keep_notice(&record, None, Some(error));
        }
        self.ctx.finish(done.as_ref().err().map_or(0, |error| kind_of(error) as i32));
        self.send_notice();
        done
    }

    /// Keeps the notice of a deploy until its locks are free again.
    pub(super) fn keep_notice(&self, record: &Record, from: Option<ReleaseId>, error: Option<&anyhow::Error>) {
        let Some(app) = self.app.filter(|_| !self.env.notify.is_empty()) else { return };
        let needs_repair = error.is_some_and(|error| kind_of(error) == Kind::RevertFailed);
        let kind = match (error, record.verb) {
            (None, Verb::Rollback) => NoticeKind::RolledBack,
            (None, _) => NoticeKind::Deployed,
            (Some(_), _) if self.pending.was_switched.get() && !needs_repair => NoticeKind::Reverted,
            (Some(_), _) => NoticeKind::Failed,
        };
        let reason = error.map(|error| self.ctx.scrub(&format!("{error:#}")));
        *self.pending.notice.borrow_mut() = Some(Notice {
            kind,
            at: self.ctx.now(),
            app: app.to_owned(),
            env: self.env.name.to_owned(),
            verb: record.verb,
            subject: subject(self.ctx, record.release.as_ref()),
            release: record.release.clone(),
            from,
            commit: record.commit.clone(),
            by: record.by.clone(),
            reason: reason.or_else(|| record.reason.clone()),
            needs_repair,
            ci: record.ci.clone(),
        });
    }

    /// Sends the notice that was kept.
    fn send_notice(&self) {
        let Some(notice) = self.pending.notice.take() else { return };
        for recipient in self.env.notify.iter().filter(|recipient| recipient.wants(notice.kind)) {
            warn(self.ctx, self.env, recipient, deliver(self.ctx, recipient, &notice));
        }
    }
}

/// Whether a plan makes a release live, by a switch or a restart.
pub(super) fn goes_live(plans: &[HostPlan]) -> bool {
    let steps = plans.iter().flat_map(|plan| &plan.steps);
    steps.into_iter().any(|step| matches!(step, Step::Activate { .. } | Step::Restart { .. }))
}

/// The release that is replaced.
pub(super) fn replaced(plans: &[HostPlan]) -> Option<ReleaseId> {
    plans.iter().flat_map(|plan| &plan.steps).find_map(|step| match step {
        Step::Activate { from, .. } => from.clone(),
        _ => None,
    })
}

fn warn(ctx: &Context, env: &Env, recipient: &Notify, sent: Result<bool>) {
    if let Err(error) = sent {
        let hint = hint_of(&error).map_or(String::new(), |hint| format!("; {hint}"));
        let (kind, name) = (recipient.to.kind(), recipient.to.variables());
        ctx.warn(format!("a notification of {} was not sent to {kind} {name}: {error:#}{hint}", env.name));
    }
}

/// URL and key of a recipient; `None` if one of them is empty.
pub fn destination(ctx: &Context, recipient: &Recipient) -> Result<Option<(String, Option<Key>)>> {
    let (Recipient::Webhook { url, .. } | Recipient::Slack { url }) = recipient;
    let url = ctx.expand(url)?;
    let secret = match recipient {
        Recipient::Webhook { secret, .. } => Some(ctx.expand(secret)?),
        Recipient::Slack { .. } => None,
    };
    if url.is_empty() || secret.as_ref().is_some_and(String::is_empty) {
        return Ok(None);
    }
    webhook::check(&url)?;
    Ok(Some((url, secret.map(|secret| Key::parse(&secret)).transpose()?)))
}

/// Whether a notice was sent; the recipient is skipped if its URL is empty.
fn deliver(ctx: &Context, recipient: &Notify, notice: &Notice) -> Result<bool> {
    let Some((url, key)) = destination(ctx, &recipient.to)? else { return Ok(false) };
    // The text is made by a function of the project.
    let Ok(document) = catch_unwind(AssertUnwindSafe(|| recipient.document(notice))) else {
        return failed("the function of its text panicked; see above")
            .hint("correct `text` in xtask/src/main.rs")
            .err();
    };
    // A reason or a subject may contain what is a secret here.
    let document = masked(ctx, document);
    webhook::send(ctx, &url, key.as_ref(), &document).map(|()| true)
}

/// A document with the secrets of this process masked in its texts.
fn masked(ctx: &Context, value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => ctx.scrub(&text).into(),
        Value::Array(items) => items.into_iter().map(|item| masked(ctx, item)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, masked(ctx, value))).collect(),
        other => other,
    }
}
