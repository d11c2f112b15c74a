//! Checks of CircleCI: token, user, project, settings, contexts, variables, and the Deploys page.
//!
//! The API gives the same answer for a wrong slug, a project that the token may not see, and a token of the wrong kind. The
//! order of the requests tells them apart.

use crate::doctor::check::{Check, Fault, Found, Need, Scope, State, address, fault};
use gangplank_deploy::ci::generate::CONFIGS;
use gangplank_model::error::Kind;
use gangplank_system::circleci;
use gangplank_system::circleci::CircleCi;
use gangplank_system::circleci::model::{Advanced, Listed};
use gangplank_system::context::Context;

/// The facts about the account. A fact is absent if an earlier error prevented the request.
#[derive(Default)]
struct Account {
    token: Token,
    /// The error that prevents any request: an invalid address or slug.
    open: Option<Fault>,
    /// The slug.
    slug: String,
    me: Option<Found<String>>,
    project: Option<Found<Option<String>>>,
    settings: Option<Found<Advanced>>,
    contexts: Option<Found<Vec<ContextCheck>>>,
    /// Branches, with the variable for their latest build, and whether it exists.
    pointers: Vec<(String, Found<bool>)>,
    /// Configs that have a pipeline definition.
    definitions: Option<Found<Vec<String>>>,
    components: Option<Found<Vec<String>>>,
}

/// A context named by the project.
struct ContextCheck {
    name: String,
    /// Its variables, if it exists and is readable.
    variables: Option<Vec<String>>,
    /// Variables that its jobs need.
    needs: Vec<String>,
}

/// The token in the environment.
#[derive(Default)]
enum Token {
    #[default]
    Missing,
    /// Present but unusable.
    Wrong(Fault),
    Good,
}

/// The checks, and whether the API answers for the project.
pub fn look(ctx: &Context, scope: &Scope) -> (Vec<Check>, bool) {
    let token = match circleci::token(ctx) {
        Ok(_) => Token::Good,
        Err(_) if !circleci::has_token(ctx) && ctx.var("CIRCLE_TOKEN").is_none() => Token::Missing,
        Err(error) => Token::Wrong(fault(error)),
    };
    let need = scope.need();
    if scope.ci || !matches!(token, Token::Good) {
        return (vec![judge_token(&token, need, scope.ci)], false);
    }
    ctx.note("asking CircleCI");
    let account = Account { token, ..ask(ctx, scope) };
    let answers = matches!(&account.project, Some(Ok(_)));
    (judge(&account, scope), answers)
}

fn ask(ctx: &Context, scope: &Scope) -> Account {
    let api = match CircleCi::open(ctx, scope.project.ci.slug) {
        Ok(api) => api,
        Err(error) => return Account { open: Some(fault(error)), ..Account::default() },
    };
    let me = api.me().map(|person| person.login).map_err(fault);
    let mut account = Account { slug: api.slug().to_string(), ..Account::default() };
    let known = me.is_ok();
    account.me = Some(me);
    if !known {
        return account;
    }
    let project = match api.project() {
        Ok(project) => project,
        Err(error) => return Account { project: Some(Err(fault(error))), ..account },
    };
    account.settings = Some(api.settings().map(|it| it.advanced).map_err(fault));
    let organization = project.organization_id.clone().unwrap_or_default();
    account.contexts = Some(contexts(&api, &organization, scope).map_err(fault));
    if scope.need() == Need::Always {
        let there = |name: &str| api.env_var(name).map(|it| it.is_some()).map_err(fault);
        let pointers = scope.project.ci.pointers.iter();
        account.pointers = pointers.map(|(_, name)| ((*name).to_owned(), there(name))).collect();
    }
    let files = |all: Vec<circleci::model::Definition>| {
        all.into_iter().filter_map(|it| it.config_source?.file_path).collect::<Vec<_>>()
    };
    account.definitions = Some(api.definitions().map(files).map_err(fault));
    let names = |all: Vec<Listed>| all.into_iter().map(|it| it.name).collect::<Vec<_>>();
    account.components = Some(api.components(&project).map(names).map_err(fault));
    account.project = Some(Ok(project.vcs_info.and_then(|it| it.default_branch)));
    account
}

/// The contexts named by the envs and the pipeline.
fn contexts(api: &CircleCi, organization: &str, scope: &Scope) -> gangplank_model::error::Result<Vec<ContextCheck>> {
    let mut wanted: Vec<(&str, Vec<String>)> = Vec::new();
    for env in scope.envs {
        if let Some(name) = env.context {
            let url = address(&env.health.check);
            let texts = env.vars.iter().map(|(_, value)| *value).chain(url);
            let mut needs: Vec<_> = texts.flat_map(required).collect();
            needs.dedup();
            wanted.push((name, needs));
        }
    }
    if let Some(name) = scope.project.ci.context {
        let token = (scope.need() == Need::Always).then(|| "CIRCLE_TOKEN".to_owned());
        wanted.push((name, token.into_iter().collect()));
    }
    if wanted.is_empty() {
        return Ok(vec![]);
    }
    let there = api.contexts(organization)?;
    let one = |(name, needs): (&str, Vec<String>)| {
        let found = there.iter().find(|it| it.name == name);
        // A token that cannot list the variables may still deploy with them.
        let variables = found.map(|it| api.context_variables(&it.id).unwrap_or_else(|_| needs.clone()));
        ContextCheck { name: name.to_owned(), variables, needs }
    };
    Ok(wanted.into_iter().map(one).collect())
}

/// Variables of a text that must be set.
fn required(text: &str) -> Vec<String> {
    let names = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    names.filter(|name| !name.contains(":-")).map(str::to_owned).collect()
}

fn judge_token(token: &Token, need: Need, ci: bool) -> Check {
    match token {
        Token::Good => Check::ok("token", "a personal token"),
        Token::Wrong(fault) if need == Need::Never && !ci => Check::of("token", State::Warning, fault),
        Token::Wrong(fault) => Check::of("token", State::Broken, fault),
        Token::Missing if ci => Check::skipped("token", "CIRCLE_TOKEN is not set: jobs with the context have it"),
        Token::Missing => {
            let hint = "create a personal API token at https://app.circleci.com/settings/user/tokens, then \
                        `export CIRCLE_TOKEN=...`";
            match need {
                Need::Always => Check::broken("token", "CIRCLE_TOKEN is not set, but the handoff uses the API", hint),
                Need::Sometimes => Check::warning(
                    "token",
                    "CIRCLE_TOKEN is not set: only releases of other stores can be deployed from here",
                    hint,
                ),
                Need::Never => Check::skipped("token", "CIRCLE_TOKEN is not set, and not needed"),
            }
        }
    }
}

fn judge(account: &Account, scope: &Scope) -> Vec<Check> {
    // A bad token blocks no deploy if the token is not needed.
    let word = if scope.need() == Need::Never { State::Warning } else { State::Broken };
    if let Some(fault) = &account.open {
        return vec![judge_token(&Token::Good, scope.need(), scope.ci), Check::of("project", word, fault)];
    }
    let login = match &account.me {
        Some(Ok(login)) => login,
        Some(Err(fault)) => {
            let what = if fault.kind == Kind::Remote { "API" } else { "token" };
            return vec![Check::of(what, word, fault), Check::skipped("project", "the API did not answer")];
        }
        None => return vec![judge_token(&account.token, scope.need(), scope.ci)],
    };
    let mut checks = vec![Check::ok("token", format!("of {login}"))];
    let default_branch = match &account.project {
        Some(Ok(branch)) => branch.as_deref(),
        Some(Err(fault)) => {
            checks.push(unseen(account, login, fault, word));
            return checks;
        }
        None => return checks,
    };
    checks.push(Check::ok("project", &account.slug));
    checks.extend(account.settings.iter().flat_map(|it| settings(it, scope.project.ci.branch, default_branch)));
    match &account.contexts {
        Some(Ok(all)) => checks.extend(all.iter().map(context)),
        Some(Err(fault)) => checks.push(Check::of("contexts", State::Skipped, fault)),
        None => {}
    }
    checks.extend(account.pointers.iter().map(pointer));
    checks.extend(account.definitions.iter().map(definitions));
    checks.extend(account.components.iter().map(|it| components(it, scope.project.app.name)));
    checks
}

/// The token is good, so two of the three causes of this error are left.
fn unseen(account: &Account, login: &str, fault: &Fault, word: State) -> Check {
    let slug = &account.slug;
    if fault.kind != Kind::NotFound {
        return Check::of("project", word, fault);
    }
    Check::new(
        "project",
        word,
        Some(format!("the token is valid, but {login} cannot see the project {slug}")),
        Some(
            "`export CIRCLE_PROJECT_SLUG=...` with the slug of Project settings > Overview, or `slug` in \
             xtask/src/main.rs; if it is right, ask for access to the project"
                .into(),
        ),
    )
}

fn settings(settings: &Found<Advanced>, branch: &str, default_branch: Option<&str>) -> Vec<Check> {
    let it = match settings {
        Ok(it) => it,
        Err(fault) => return vec![Check::of("settings", State::Skipped, fault)],
    };
    let mut checks = Vec::new();
    if it.build_fork_prs && it.forks_receive_secret_env_vars {
        checks.push(Check::warning(
            "settings",
            "pull requests from forks are built with the project's secrets, so anyone can read them",
            "turn `Pass secrets to builds from forked pull requests` off in Project settings > Advanced",
        ));
    }
    if it.autocancel_builds && default_branch.is_some_and(|default| default != branch) {
        let default = default_branch.unwrap_or_default();
        checks.push(Check::warning(
            "settings",
            format!("a push to {branch} cancels a running deploy: it is not the default branch ({default})"),
            "turn `Auto-cancel redundant workflows` off in Project settings > Advanced",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::fine("settings"));
    }
    checks
}

fn context(it: &ContextCheck) -> Check {
    let what = format!("context {}", it.name);
    let Some(variables) = &it.variables else {
        return Check::broken(
            what,
            "it does not exist, so CircleCI refuses its jobs",
            "create it in Organization settings > Contexts, or correct the name in xtask/src/main.rs",
        );
    };
    let missing: Vec<_> = it.needs.iter().filter(|name| !variables.contains(name)).map(String::as_str).collect();
    match missing.as_slice() {
        [] => Check::fine(what),
        // A variable of the project would suffice too.
        missing => Check::warning(
            what,
            format!("it lacks {}, which its jobs need", missing.join(", ")),
            format!(
                "`circleci context store-secret {} {}`, or set it in Organization settings > Contexts",
                it.name, missing[0]
            ),
        ),
    }
}

fn pointer((name, found): &(String, Found<bool>)) -> Check {
    match found {
        Ok(true) => Check::fine(name),
        Ok(false) => Check::warning(
            name,
            "the project has no such variable, so `latest` takes longer",
            "nothing to do: the next `publish` job sets it",
        ),
        Err(fault) => Check::of(name, State::Skipped, fault),
    }
}

fn definitions(found: &Found<Vec<String>>) -> Check {
    let what = "pipeline definitions";
    let files = match found {
        Err(fault) => return Check::of(what, State::Skipped, fault),
        Ok(files) if files.is_empty() => {
            return Check::skipped(what, "none: an OAuth project, or an old server");
        }
        Ok(files) => files,
    };
    let without: Vec<_> = CONFIGS.into_iter().filter(|config| !files.iter().any(|file| file == config)).collect();
    match without.as_slice() {
        [] => Check::fine(what),
        [first, ..] if *first == CONFIGS[0] => Check::warning(
            what,
            format!("none has {first}, so `ci trigger` and pushes do not start it"),
            "add one in Project settings > Project setup",
        ),
        pages => Check::skipped(
            what,
            format!("none for {}: the buttons of the Deploys page do nothing", pages.join(" and ")),
        ),
    }
}

fn components(found: &Found<Vec<String>>, app: &str) -> Check {
    let what = "Deploys page";
    match found {
        Err(fault) => Check::of(what, State::Skipped, fault),
        Ok(names) if names.iter().any(|name| name == app) => Check::ok(what, format!("it knows {app}")),
        Ok(_) => Check::skipped(what, format!("it does not know {app} before the first deploy in a job")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gangplank_model::project::{App, Ci, Handoff, Project};

    fn no(kind: Kind, text: &str) -> Fault {
        Fault { kind, text: text.into(), hint: "do this".into() }
    }

    /// The first problem, for a project that needs the API.
    fn first(account: &Account, need: Need) -> String {
        let (handoff, stores): (_, &[&str]) = match need {
            Need::Always => (Handoff::Artifacts, &[]),
            Need::Sometimes => (Handoff::Workspace, &["circleci:artifacts"]),
            Need::Never => (Handoff::Workspace, &["file:store"]),
        };
        let app = App { name: "shop", ..App::DEFAULT };
        let project = Project { app, stores, envs: &[], ci: Ci { handoff, ..Ci::DEFAULT } };
        let ctx = Context::new(
            "/".into(),
            std::collections::BTreeMap::new(),
            std::sync::Arc::new(gangplank_model::event::NoSink),
        );
        let scope = Scope {
            tool: &gangplank_deploy::tool::Tool::bare(&ctx, &project),
            project: &project,
            envs: &[],
            ci: false,
            in_job: false,
        };
        assert_eq!(scope.need(), need);
        let checks = judge(account, &scope);
        let sick = checks.iter().find(|it| matches!(it.state, State::Broken | State::Warning));
        sick.map(|it| format!("{} {}: {}", it.state.as_str(), it.what, it.detail.as_deref().unwrap_or_default()))
            .unwrap_or_default()
    }

    fn good() -> Account {
        Account { token: Token::Good, slug: "gh/acme/shop".into(), me: Some(Ok("ana".into())), ..Account::default() }
    }

    #[test]
    fn judge_tells_wrong_token_project_and_api_apart() {
        let token = |token| Account { token, ..Account::default() };
        let wrong = || Token::Wrong(no(Kind::Auth, "a project token"));
        for (account, need, says) in [
            (token(Token::Missing), Need::Always, "broken token: CIRCLE_TOKEN is not set, but the handoff"),
            (token(Token::Missing), Need::Sometimes, "warning token: CIRCLE_TOKEN is not set: only"),
            (token(Token::Missing), Need::Never, ""),
            (token(wrong()), Need::Always, "broken token: a project token"),
            (token(wrong()), Need::Sometimes, "broken token: a project token"),
            (token(wrong()), Need::Never, "warning token: a project token"),
            (Account { open: Some(no(Kind::Usage, "no slug")), ..good() }, Need::Always, "broken project: no slug"),
            (Account { me: Some(Err(no(Kind::Auth, "401"))), ..good() }, Need::Always, "broken token: 401"),
            (Account { me: Some(Err(no(Kind::Remote, "503"))), ..good() }, Need::Always, "broken API: 503"),
            (Account { me: Some(Err(no(Kind::Remote, "503"))), ..good() }, Need::Never, "warning API: 503"),
            (
                Account { project: Some(Err(no(Kind::NotFound, "404"))), ..good() },
                Need::Always,
                "broken project: the token is valid, but ana cannot see the project gh/acme/shop",
            ),
            (Account { project: Some(Err(no(Kind::Auth, "403"))), ..good() }, Need::Always, "broken project: 403"),
            (Account { project: Some(Ok(None)), ..good() }, Need::Always, ""),
        ] {
            let said = first(&account, need);
            assert!(said.starts_with(says) && says.is_empty() == said.is_empty(), "{need:?}: {said}");
        }
    }

    #[test]
    fn judge_of_project_settings_contexts_and_definitions_warns() {
        let project = |branch: &str| Some(Ok(Some(branch.to_owned())));
        let advanced = |autocancel_builds, build_fork_prs, forks_receive_secret_env_vars| {
            Some(Ok(Advanced { autocancel_builds, build_fork_prs, forks_receive_secret_env_vars }))
        };
        for (branch, settings, says) in [
            ("main", advanced(true, false, true), ""),
            ("main", advanced(false, true, true), "warning settings: pull requests from forks"),
            ("trunk", advanced(true, false, false), "warning settings: a push to main cancels"),
            ("main", Some(Err(no(Kind::Auth, "403"))), ""),
        ] {
            let said = first(&Account { project: project(branch), settings, ..good() }, Need::Never);
            assert!(said.starts_with(says) && says.is_empty() == said.is_empty(), "{said}");
        }
        let one = |variables: Option<&[&str]>| {
            let variables = variables.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
            context(&ContextCheck { name: "c".into(), variables, needs: vec!["KEY".into()] }).state
        };
        assert_eq!((one(None), one(Some(&[])), one(Some(&["KEY"]))), (State::Broken, State::Warning, State::Ok));
        let files = |all: &[&str]| definitions(&Ok(all.iter().map(|it| (*it).to_owned()).collect())).state;
        assert_eq!((files(&[]), files(&["x.yml"])), (State::Skipped, State::Warning));
        assert_eq!((files(&CONFIGS[..1]), files(&CONFIGS)), (State::Skipped, State::Ok));
        assert_eq!(required("${A}${B:-b}x${C}${"), ["A", "C"]);
    }
}
