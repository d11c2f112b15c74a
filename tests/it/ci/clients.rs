//! Other clients of CircleCI's API, written by others, against `ci loopback`: the package `circleci` of `PyPI`, and curl and
//! wget as people use them in scripts.

use crate::ci::with_xtask;
use crate::project::Project;
use crate::record::skip;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `ci loopback`, and the variables that it printed.
struct Server {
    child: Child,
    vars: Vec<(String, String)>,
}

impl Server {
    fn start(p: &Project) -> Self {
        let mut child = p.start("ci loopback");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let vars =
            lines.take(3).filter_map(|line| Some((line.split_once('=')?.0.into(), line.split_once('=')?.1.into())));
        let vars: Vec<(String, String)> = vars.collect();
        assert_eq!(vars.len(), 3, "{vars:?}");
        Self { child, vars }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// A project with a release among the artifacts of a build on this machine.
fn built() -> Project {
    let mut p = with_xtask();
    p.change("store circleci:workspace\n", "handoff artifacts\nstore circleci:workspace\nstore circleci:artifacts\n");
    p.run("ci generate").ok();
    p.commit("1");
    p.run("ci run build --yes").ok();
    p
}

fn python() -> Option<PathBuf> {
    let tools = std::env::var_os("GANGPLANK_CHECK_JSONSCHEMA").map(PathBuf::from);
    let python = tools.as_deref().and_then(Path::parent).map(|bin| bin.join("python3"));
    let has_client = |python: &PathBuf| {
        let asked = Command::new(python).args(["-c", "import circleci.api"]).output();
        asked.is_ok_and(|answer| answer.status.success())
    };
    let python = python.filter(has_client);
    if python.is_none() {
        skip("another client of CircleCI's API: `cargo xtask test` installs the package `circleci` of PyPI");
    }
    python
}

#[test]
fn client_of_pypi_reads_builds_artifacts_and_variables_and_starts_a_pipeline() {
    let Some(python) = python() else { return };
    let p = built();
    let server = Server::start(&p);
    let script = r"
import os, sys
from circleci.api import Api
host, token = os.environ['CIRCLE_HOST'], os.environ['CIRCLE_TOKEN']
vcs, user, project = os.environ['CIRCLE_PROJECT_SLUG'].split('/')
api = Api(token, url=host + '/api/v1.1')
assert api.get_user_info()['login']
builds = api.get_project_build_summary(user, project)
build = next(it for it in builds if it['workflows']['job_name'] == 'build')
info = api.get_build_info(user, project, build['build_num'])
assert (info['status'], info['outcome'], info['branch']) == ('success', 'success', 'main'), info
artifacts = api.get_artifacts(user, project, info['build_num'])
manifest = next(it['url'] for it in artifacts if it['path'].endswith('manifest.json'))
with open(api.download_artifact(manifest, os.getcwd())) as file:
    assert info['vcs_revision'] in file.read()
assert api.list_envvars(user, project) == []
assert api.add_envvar(user, project, 'LATEST_BUILD_NUM', '12345') == {'name': 'LATEST_BUILD_NUM', 'value': 'xxxx2345'}
assert api.list_envvars(user, project) == [{'name': 'LATEST_BUILD_NUM', 'value': 'xxxx2345'}]
assert api.get_envvar(user, project, 'LATEST_BUILD_NUM')['value'] == 'xxxx2345'
api.delete_envvar(user, project, 'LATEST_BUILD_NUM')
# Builds of version 2.1 are no business of API v1.1.
try:
    api.trigger_build(user, project, 'main')
    sys.exit('a build was started')
except Exception as error:
    assert '400' in str(error), error
started = Api(token, url=host + '/api/v2')._request('POST', f'project/{vcs}/{user}/{project}/pipeline', data={'branch': 'main'})
assert started['number'] > 0, started
try:
    Api('wrong', url=host + '/api/v1.1').get_build_info(user, project, 1)
    sys.exit('a wrong token was taken')
except Exception as error:
    assert '401' in str(error), error
print('well')
";
    let dir = crate::record::tempdir();
    let mut command = Command::new(python);
    command.args(["-c", script]).current_dir(dir.path()).envs(server.vars.iter().map(|(name, value)| (name, value)));
    let answer = command.env("NO_PROXY", "*").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "well\n", "{}", String::from_utf8_lossy(&answer.stderr));
}

/// The two lines that people copy: one sets the variable, the other downloads what it names.
#[test]
fn curl_grep_and_wget_set_the_variable_and_download_the_artifacts() {
    let p = built();
    let server = Server::start(&p);
    let dir = crate::record::tempdir();
    let script = r#"set -eu
slug=$CIRCLE_PROJECT_SLUG
number=$(curl -s -u "$CIRCLE_TOKEN:" "$CIRCLE_HOST/api/v1.1/project/github/${slug#gh/}?limit=1" | grep -o '"build_num": *[0-9]*' | grep -o '[0-9]*$')
curl -s -X POST -H "Content-Type: application/json" -d "{\"name\": \"LATEST_BUILD_NUM\", \"value\": \"$number\"}" \
  $CIRCLE_HOST/api/v2/project/$slug/envvar -H "Circle-Token: $CIRCLE_TOKEN"
curl -s -L -X GET "$CIRCLE_HOST/api/v2/project/$slug/$number/artifacts" \
  -H "Accept: application/json" \
  -u "$CIRCLE_TOKEN:" \
  | grep -o 'http://[^"]*' \
  | wget --quiet --header "Circle-Token: $CIRCLE_TOKEN" --input-file -
"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir.path()).envs(server.vars.iter().map(|(name, value)| (name, value)));
    let answer = command.env("no_proxy", "*").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(
        answer.status.success() && said.contains("LATEST_BUILD_NUM"),
        "{said}{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    let manifest = std::fs::read_to_string(dir.path().join("manifest.json")).unwrap();
    assert!(manifest.contains("\"app\": \"shop\""), "{manifest}");
    assert!(dir.path().join("SHA256SUMS").exists());
}
