//! Checks shell text in `run` steps: API calls that cannot fail, exposed tokens, deploys that are repeated, release
//! markers split over two jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::str::Chars;

use crate::finding::Report;
use crate::model::{Model, Step};
use crate::text;

/// Words before the program of a command.
const PREFIXES: &[&str] = &["!", "do", "else", "exec", "if", "sudo", "then", "time", "until", "while", "{"];

/// A simple command of a shell script: its program and arguments, with the quotes removed.
pub(super) struct Call {
    words: Vec<String>,
}

/// The calls of CircleCI's API in a script.
pub(super) fn api_calls(script: &str) -> impl Iterator<Item = Call> {
    calls(script).into_iter().filter(Call::is_api)
}

/// The commands of our own program in a script: `put` of `cargo xtask put`.
pub(super) fn xtask_verbs(script: &str) -> Vec<String> {
    let verb = |call: Call| {
        let at = call.words.iter().position(|word| word == "xtask" || word.ends_with("/xtask"))?;
        call.words.into_iter().skip(at + 1).find(|word| !word.starts_with('-'))
    };
    calls(script).into_iter().filter_map(verb).collect()
}

impl Call {
    fn program(&self) -> &str {
        let is_prefix = |word: &str| word.contains('=') || PREFIXES.contains(&word);
        let program = self.words.iter().find(|word| !is_prefix(word));
        program.map_or("", |program| program.rsplit('/').next().unwrap_or(program))
    }

    fn is_api(&self) -> bool {
        self.is_client() && self.words.iter().any(|word| word.contains("circleci.com/api"))
    }

    fn is_client(&self) -> bool {
        matches!(self.program(), "curl" | "wget" | "http" | "https")
    }

    /// Whether a server error goes unnoticed. A script with `--write-out` checks the status itself.
    fn ignores_errors(&self) -> bool {
        let notices = |word: &String| {
            let short = word.starts_with('-') && !word.starts_with("--") && word.len() <= 6;
            let letters = short && word[1..].chars().all(|c| c.is_ascii_alphabetic());
            word.starts_with("--fail") || word.starts_with("--write-out") || (letters && word.contains(['f', 'w']))
        };
        self.program() == "curl" && !self.words.iter().any(notices)
    }

    pub(crate) fn writes_variable(&self) -> bool {
        let writes = |word: &String| word.contains("POST") || word.starts_with("-d") || word.starts_with("--data");
        self.words.iter().any(|word| word.contains("/envvar")) && self.words.iter().any(writes)
    }

    pub(crate) fn reads_artifacts(&self) -> bool {
        self.words.iter().any(|word| word.contains("/artifacts"))
    }

    /// The variable with the number of the job whose artifacts are requested.
    pub(crate) fn numbered_by(&self) -> Option<String> {
        let numbers = self.words.iter().filter_map(|word| word.split("/artifacts").next()?.rsplit_once('/'));
        let names = numbers.filter(|_| self.reads_artifacts()).filter_map(|(_, number)| number.strip_prefix('$'));
        names.map(|name| name.trim_matches(['{', '}']).to_owned()).next()
    }

    /// A variable with a token in an argument.
    fn token(&self) -> Option<String> {
        let expanded = self.words.iter().flat_map(|word| word.split('$').skip(1));
        let names = expanded.map(|rest| {
            let rest = rest.trim_start_matches('{');
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        });
        names.into_iter().find(|name| name.to_ascii_uppercase().contains("TOKEN")).map(str::to_owned)
    }

    /// The deploy name of `circleci run release <verb>`; `default` if absent.
    fn release_marker(&self, verb: &str) -> Option<&str> {
        let start = ["circleci", "run", "release", verb];
        let at = self.words.windows(start.len()).position(|words| words == start)?;
        let name = self.words.get(at + start.len()).filter(|word| !word.starts_with('-'));
        Some(name.map_or("default", String::as_str))
    }
}

/// Splits a script into commands and words. It supports quotes, comments, continued lines, operators and `$( … )`,
/// which suffice for the commands of configurations; it is not a shell.
fn calls(script: &str) -> Vec<Call> {
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None | Some('"'), '$') if chars.peek() == Some(&'(') => {
                // The substitution has its own quoting.
                found.extend(calls(&substitution(&mut chars)));
                word.push_str("$()");
            }
            (None | Some('"'), '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.push(escaped),
            },
            (None, '#') if word.is_empty() => while chars.next_if(|&c| c != '\n').is_some() {},
            (None, c) if c.is_whitespace() || ";|&()`".contains(c) => {
                words.extend(finished(&mut word));
                if c != ' ' && c != '\t' {
                    found.extend(finished(&mut words).map(|words| Call { words }));
                }
            }
            (_, c) => word.push(c),
        }
    }
    words.extend(finished(&mut word));
    found.extend(finished(&mut words).map(|words| Call { words }));
    found
}

fn finished<T: Default + PartialEq>(part: &mut T) -> Option<T> {
    let part = std::mem::take(part);
    (part != T::default()).then_some(part)
}

/// The inside of a `$( … )` after its `$`. Without a `)` it extends to the end.
fn substitution(chars: &mut Peekable<Chars>) -> String {
    let mut inside = String::new();
    let mut open = 0;
    let mut quote = None;
    for c in chars.by_ref() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => open += 1,
            (None, ')') => open -= 1,
            _ => {}
        }
        if open == 0 {
            break;
        }
        inside.push(c);
    }
    inside.split_off(inside.len().min(1))
}

pub(super) fn api_calls_without_fail(model: &Model, report: &mut Report) {
    for (list, step) in model.steps() {
        let Some(command) = step.command() else { continue };
        if api_calls(&command.text).any(|call| call.ignores_errors()) {
            report.warning(
                "api-call-without-fail",
                step.line,
                format!("{} calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500", list.owner),
                "add `--fail-with-body --retry 3`, so that the step fails when the call does",
            );
        }
    }
}

/// A JSON answer parsed as lines.
pub(super) fn api_answers_by_grep(model: &Model, report: &mut Report) {
    for (list, step) in model.steps() {
        let Some(command) = step.command() else { continue };
        let picks = |call: &Call| {
            matches!(call.program(), "grep" | "sed" | "awk") && call.words.iter().any(|word| word.contains("http"))
        };
        // The command after the call receives its output.
        let all = calls(&command.text);
        let pairs = all.windows(2).filter(|pair| pair[0].is_api() && pair[0].reads_artifacts());
        if let Some(call) = pairs.map(|pair| &pair[1]).find(|call| picks(call)) {
            report.warning(
                "api-answer-by-grep",
                step.line,
                format!(
                    "{} picks URLs out of the API's answer with `{}`: those of an error message too, and none of the \
                     second page",
                    list.owner,
                    call.program()
                ),
                "read the JSON: `jq -r '.items[].url'`, then the page that `next_page_token` names",
            );
        }
    }
}

/// CircleCI expands a parameter before the shell parses the command.
pub(super) fn parameters_in_commands(model: &Model, report: &mut Report) {
    let mut lines: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    // As it is written, and as it is where a command hands a parameter on.
    let written = model.steps().map(|(_, step)| step);
    for step in written.chain(model.invocations().flat_map(|(_, invocation)| &invocation.steps)) {
        let Some(command) = step.command() else { continue };
        for expression in text::expressions(&command.text).filter(|it| is_free_text(model, it)) {
            lines.entry(expression.to_owned()).or_default().insert(step.line);
        }
    }
    for (expression, lines) in lines {
        let Some(line) = lines.first() else { continue };
        let commands =
            if lines.len() == 1 { "a command has".to_owned() } else { format!("{} commands have", lines.len()) };
        report.warning(
            "parameter-in-command",
            *line,
            format!("{commands} `<< {expression} >>` in the script: its value is run as part of the shell text"),
            format!("give it to the job by `environment: {{ VALUE: << {expression} >> }}`, and write `\"$VALUE\"`"),
        );
    }
}

/// Whether a parameter is free text; numbers, booleans and enums cannot contain a command.
fn is_free_text(model: &Model, expression: &str) -> bool {
    let declared = |name: &str| model.root.get("parameters").and_then(|it| it.get(name)?.get("type")?.text());
    let mut parameters = text::pipeline_parameters(expression);
    parameters.any(|name| declared(name).is_none_or(|it| it == "string"))
        || expression.starts_with("pipeline.deploy.")
        || expression.starts_with("pipeline.trigger_parameters.")
}

/// One finding per token and program.
pub(super) fn tokens_on_command_line(model: &Model, report: &mut Report) {
    let mut found: BTreeMap<(String, String), Vec<(usize, &str)>> = BTreeMap::new();
    for (list, step) in model.steps() {
        let Some(command) = step.command() else { continue };
        let clients = calls(&command.text).into_iter().filter(Call::is_client);
        for (program, token) in clients.filter_map(|call| Some((call.program().to_owned(), call.token()?))) {
            let uses = found.entry((program, token)).or_default();
            if !uses.contains(&(step.line, list.owner.as_str())) {
                uses.push((step.line, &list.owner));
            }
        }
    }
    for ((program, token), uses) in found {
        let Some((line, owner)) = uses.iter().min() else { continue };
        let (owner, pass) = match uses.len() {
            1 => ((*owner).to_owned(), "passes"),
            uses => (format!("{owner} and {} more", uses - 1), "pass"),
        };
        let hint = if program == "wget" {
            "wget sends its headers to every host that it is redirected to; use `curl --header @file` \
             with `Authorization: Bearer`"
        } else {
            "write `Authorization: Bearer …` to a file that only you can read, and pass `--header @file`"
        };
        report.warning(
            "token-on-command-line",
            *line,
            format!("{owner} {pass} `${token}` to `{program}` as an argument, which `ps` shows"),
            hint,
        );
    }
}

pub(super) fn deploy_reruns(model: &Model, report: &mut Report) {
    let hint = "remove `max_auto_reruns`, unless the same deploy may safely run again half-way";
    for (list, step) in model.steps() {
        let Some((key, _)) = step.body.and_then(|body| body.entry("max_auto_reruns")) else { continue };
        let own = [step.text("name"), step.command()].into_iter().flatten();
        let deploys = own.into_iter().any(|it| text::says_deploy(&it.text));
        let is_check = text::says_check(list.name) || text::says_build(list.name);
        if deploys || (text::says_deploy(list.name) && !is_check) {
            let message = format!("{} reruns a deploy by itself when it fails", list.owner);
            report.warning("deploy-auto-rerun", key.line, message, hint);
        }
    }
    for workflow in &model.workflows {
        let deploying = workflow.invocations.iter().find(|it| it.is_deploying());
        if let (Some(line), Some(job)) = (workflow.max_auto_reruns, deploying) {
            let message = format!("workflow `{}` reruns job `{}` by itself when it fails", workflow.name, job.name);
            report.warning("deploy-auto-rerun", line, message, hint);
        }
    }
}

pub(super) fn split_release_markers(model: &Model, report: &mut Report) {
    for workflow in &model.workflows {
        let jobs = &workflow.invocations;
        let plans = |steps: &[Step], name: &str| {
            markers(steps, "plan").iter().any(|(_, call)| call.release_marker("plan") == Some(name))
        };
        for invocation in jobs {
            for (line, call) in markers(&invocation.steps, "update") {
                let name = call.release_marker("update").unwrap_or_default();
                // A canceled job cannot update its marker, so another job has to.
                let is_cancel = call.words.iter().any(|word| word.to_ascii_uppercase().contains("CANCEL"));
                let planned = jobs.iter().find(|it| plans(&it.steps, name));
                let Some(planned) = planned.filter(|_| !is_cancel && !plans(&invocation.steps, name)) else {
                    continue;
                };
                report.warning(
                    "split-release-marker",
                    line,
                    format!(
                        "job `{}` updates the release marker `{name}` that job `{}` planned: \
                         after a rerun from failed the update finds no plan",
                        invocation.name, planned.name
                    ),
                    "run `circleci run release plan` and `update` in one job",
                );
            }
        }
    }
}

/// The calls of `circleci run release <verb>` in some steps, with their lines.
fn markers(steps: &[Step], verb: &str) -> Vec<(usize, Call)> {
    let commands = steps.iter().filter_map(|step| Some((step.line, step.command()?)));
    let calls = commands.flat_map(|(line, command)| calls(&command.text).into_iter().map(move |call| (line, call)));
    calls.filter(|(_, call)| call.release_marker(verb).is_some()).collect()
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::{Expect, expect};

    use super::{calls, xtask_verbs};
    use crate::tests;

    /// Lints one shell script as the only step of a job.
    fn check(script: &str, expected: Expect) {
        let script = script.replace('\n', "\n          ");
        tests::check(&format!("jobs:\n  build:\n    steps:\n      - run: |\n          {script}\n"), expected);
    }

    #[test]
    fn scripts_are_cut_into_calls() {
        let table = [
            ("a b | c 'd e' && f", "a,b|c,d e|f"),
            ("a \\\n  b # c 'd\ne", "a,b|e"),
            ("x=\"$(a \"$(b c)\" d)\" e", "b,c|a,$(),d|x=$(),e"),
            ("if ! a; then (b); fi", "if,!,a|then|b|fi"),
            ("a \"b 'c\" 'd", "a,b 'c,d"),
            ("a $(b", "b|a,$()"),
            ("a \"\\\"b\\\"\" \\", "a,\"b\""),
        ];
        for (script, words) in table {
            let found: Vec<String> = calls(script).iter().map(|call| call.words.join(",")).collect();
            assert_eq!(found.join("|"), words, "{script}");
        }
    }

    #[test]
    fn api_calls_that_cannot_fail() {
        check(
            "curl -X POST https://circleci.com/api/v2/project",
            expect![[r#"
            4 warning api-call-without-fail: job `build` calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500
                add `--fail-with-body --retry 3`, so that the step fails when the call does
        "#]],
        );
        check(
            "if curl -sL \"https://circleci.com/api/v2/me?a=b&c=d\"; then a; fi",
            expect![[r#"
            4 warning api-call-without-fail: job `build` calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500
                add `--fail-with-body --retry 3`, so that the step fails when the call does
        "#]],
        );
        check(
            "x=\"$(curl --silent \"https://circleci.com/api/v2/me\")\"",
            expect![[r#"
            4 warning api-call-without-fail: job `build` calls CircleCI's API with a `curl` that exits 0 on 401, 404 and 500
                add `--fail-with-body --retry 3`, so that the step fails when the call does
        "#]],
        );
        check("curl -fsSL https://circleci.com/api/v2/me", expect![[""]]);
        check("curl \"https://circleci.com/api/v2/me?a=b&c=d\" \\\n --fail-with-body", expect![[""]]);
        check("curl -w '%{http_code}' https://circleci.com/api/v2/me", expect![[""]]);
        check("curl https://example.com/; echo https://circleci.com/api/v2/me", expect![[""]]);
    }

    #[test]
    fn xtask_verbs_are_found_in_scripts() {
        for (script, verbs) in [
            ("cargo xtask verify --store\n/tmp/workspace/bin/xtask --quiet publish", "verify publish"),
            ("echo xtask; cargo build; xtask", ""),
            ("if cargo xtask deploy prod; then echo; fi", "deploy"),
        ] {
            assert_eq!(xtask_verbs(script).join(" "), verbs, "{script}");
        }
    }

    #[test]
    fn parameters_are_no_shell() {
        tests::check(
            "
            parameters:
              note: { type: string, default: '' }
              count: { type: integer, default: 1 }
              env: { type: enum, enum: [dev], default: dev }
            commands:
              say: { parameters: { what: { type: string } }, steps: [{ run: echo << parameters.what >> }] }
            jobs:
              build:
                steps:
                  - run: echo << pipeline.parameters.count >> << pipeline.parameters.env >> << pipeline.number >>
                  - run: { command: echo \"$NOTE\", environment: { NOTE: << pipeline.parameters.note >> } }
                  - run: echo '<< pipeline.parameters.note >>'
                  - run: { command: echo << pipeline.deploy.reason >> }
                  - say: { what: << pipeline.parameters.note >> }
            ",
            expect![[r#"
                6 warning parameter-in-command: 2 commands have `<< pipeline.parameters.note >>` in the script: its value is run as part of the shell text
                    give it to the job by `environment: { VALUE: << pipeline.parameters.note >> }`, and write `"$VALUE"`
                13 warning parameter-in-command: a command has `<< pipeline.deploy.reason >>` in the script: its value is run as part of the shell text
                    give it to the job by `environment: { VALUE: << pipeline.deploy.reason >> }`, and write `"$VALUE"`
            "#]],
        );
    }

    #[test]
    fn answers_are_read_as_json() {
        let url = "https://circleci.com/api/v2/project/gh/a/b/1/artifacts";
        check(&format!("curl --fail {url} | jq -r '.items[].url'; grep http log"), expect![""]);
        check(&format!("curl --fail {url} | jq . | grep path"), expect![[""]]);
    }

    #[test]
    fn tokens_that_others_can_read() {
        check(
            "curl -u \"$API_TOKEN:\" https://x.org",
            expect![[r#"
            4 warning token-on-command-line: job `build` passes `$API_TOKEN` to `curl` as an argument, which `ps` shows
                write `Authorization: Bearer …` to a file that only you can read, and pass `--header @file`
        "#]],
        );
        check(
            "wget --header=\"Circle-Token: ${CIRCLE_TOKEN}\" https://x.org",
            expect![[r#"
            4 warning token-on-command-line: job `build` passes `$CIRCLE_TOKEN` to `wget` as an argument, which `ps` shows
                wget sends its headers to every host that it is redirected to; use `curl --header @file` with `Authorization: Bearer`
        "#]],
        );
        check(
            "sudo /usr/bin/curl https://x.org?circle-token=$token",
            expect![[r#"
            4 warning token-on-command-line: job `build` passes `$token` to `curl` as an argument, which `ps` shows
                write `Authorization: Bearer …` to a file that only you can read, and pass `--header @file`
        "#]],
        );
        check("curl --header @headers https://x.org", expect![[""]]);
        check("printf 'Authorization: Bearer %s' \"$CIRCLE_TOKEN\" > headers", expect![[""]]);
        check("curl -H 'X: $CIRCLE_SHA1' https://x.org", expect![[""]]);
    }

    #[test]
    fn deploys_do_not_rerun_by_themselves() {
        tests::check(
            "
            jobs:
              a: { steps: [{ run: { command: ./deploy.sh, max_auto_reruns: 2 } }, { run: ./deploy.sh }] }
              b: { steps: [{ run: { command: make test, max_auto_reruns: 2 } }] }
              c: { steps: [{ run: { name: Publish, command: make, max_auto_reruns: 2 } }] }
              deploy: { steps: [{ run: { command: make ship, max_auto_reruns: 2 } }] }
              test-deploy: { steps: [{ run: { command: make ship, max_auto_reruns: 2 } }] }
            workflows:
              v: { max_auto_reruns: 2, jobs: [a, b, c, test-deploy] }
              w: { max_auto_reruns: 2, jobs: [{ deploy: { serial-group: x } }] }
            ",
            expect![[r#"
                2 warning deploy-auto-rerun: job `a` reruns a deploy by itself when it fails
                    remove `max_auto_reruns`, unless the same deploy may safely run again half-way
                4 warning deploy-auto-rerun: job `c` reruns a deploy by itself when it fails
                    remove `max_auto_reruns`, unless the same deploy may safely run again half-way
                5 warning deploy-auto-rerun: job `deploy` reruns a deploy by itself when it fails
                    remove `max_auto_reruns`, unless the same deploy may safely run again half-way
                9 warning deploy-auto-rerun: workflow `w` reruns job `deploy` by itself when it fails
                    remove `max_auto_reruns`, unless the same deploy may safely run again half-way
            "#]],
        );
    }

    #[test]
    fn release_markers_stay_in_one_job() {
        let plan = "run: circleci run release plan web --target-version=$CIRCLE_SHA1";
        let update = "run: circleci run release update web --status=SUCCESS";
        let config = |deploy: &str, after: &str| {
            format!(
                "jobs:\n  go: {{ steps: [{deploy}] }}\n  end: {{ steps: [{after}] }}\n\
                 workflows: {{ w: {{ jobs: [go, {{ end: {{ requires: [go] }} }}] }} }}\n"
            )
        };
        let both = format!("{{ {plan} }}, {{ {update} }}");
        tests::check(
            &config(&format!("{{ {plan} }}"), &format!("{{ {update} }}")),
            expect![[r#"
            3 warning split-release-marker: job `end` updates the release marker `web` that job `go` planned: after a rerun from failed the update finds no plan
                run `circleci run release plan` and `update` in one job
        "#]],
        );
        tests::check(&config(&both, "checkout"), expect![[""]]);
        let cancel = update.replace("SUCCESS", "CANCELED");
        tests::check(&config(&both, &format!("{{ {cancel} }}")), expect![[""]]);
        let other = update.replace("web ", "api ");
        tests::check(&config(&both, &format!("{{ {other} }}")), expect![[""]]);
    }
}
