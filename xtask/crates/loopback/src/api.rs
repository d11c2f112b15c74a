//! API v2 as a table of routes. A new route is a row of `ROUTES` and a handler in `v2`, `about` or `trigger`.

use crate::auth::authenticate;
use crate::call::{Call, Handled, is_project};
use crate::message::Reply;
use crate::{about, trigger, v2};

type Handler = fn(&mut Call) -> Handled;

/// Method, path as in the specification, and handler. The first match is used.
const ROUTES: &[(&str, &str, Handler)] = &[
    ("GET", "/me", v2::me),
    ("GET", "/project/{project-slug}", v2::project),
    ("GET", "/project/{project-slug}/envvar", v2::envvars),
    ("POST", "/project/{project-slug}/envvar", v2::set_envvar),
    ("GET", "/project/{project-slug}/envvar/{name}", v2::envvar),
    ("DELETE", "/project/{project-slug}/envvar/{name}", v2::delete_envvar),
    ("GET", "/project/{project-slug}/job/{job-number}", v2::job_details),
    ("GET", "/project/{project-slug}/pipeline", v2::pipelines),
    ("POST", "/project/{project-slug}/pipeline", trigger::superseded),
    ("GET", "/project/{project-slug}/pipeline/{pipeline-number}", v2::numbered_pipeline),
    ("POST", "/project/{provider}/{organization}/{project}/pipeline/run", trigger::run),
    ("GET", "/project/{project-slug}/{job-number}/artifacts", v2::artifacts),
    ("GET", "/jobs/{job_id}", v2::job),
    ("GET", "/pipeline/{pipeline-id}", v2::pipeline),
    ("GET", "/pipeline/{pipeline-id}/workflow", v2::workflows),
    ("GET", "/workflow/{id}", v2::workflow),
    ("GET", "/workflow/{id}/job", v2::workflow_jobs),
    ("POST", "/workflow/{id}/approve/{approval_request_id}", v2::approve),
    ("POST", "/workflow/{id}/cancel", v2::cancel),
    ("GET", "/projects/{project_id}/pipeline-definitions", trigger::definitions),
    ("GET", "/project/{provider}/{organization}/{project}/settings", about::settings),
    ("GET", "/context", about::contexts),
    ("GET", "/context/{context_id}/environment-variable", about::context_variables),
    ("GET", "/deploy/components", about::components),
];

/// Answers a path below `/api/v2`, and returns its route.
pub(super) fn answer(call: &mut Call, path: &str) -> (Reply, Option<&'static str>) {
    let Some((template, handler, params)) = find(&call.request.method, path) else {
        return (Reply::message(404, "Not found."), None);
    };
    call.params = params;
    let reply = authenticate(call.state, call.request, false).and_then(|()| {
        if template.contains("{project-slug}") {
            is_project(call.state, &call.params[0])?;
        }
        handler(call)
    });
    (reply.unwrap_or_else(|refused| refused), Some(template))
}

/// Method and path of every route, as in the specification.
pub(super) fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|(method, template, _)| (*method, *template))
}

/// The route of a path below `/api/v2`, as in the specification.
pub(super) fn template(method: &str, path: &str) -> Option<&'static str> {
    find(method, path).map(|(template, ..)| template)
}

fn find(method: &str, path: &str) -> Option<(&'static str, Handler, Vec<String>)> {
    let mut of_method = ROUTES.iter().filter(|(known, ..)| *known == method);
    of_method.find_map(|(_, template, handler)| Some((*template, *handler, params(template, path)?)))
}

/// Matches a path. A slug has three parts, separated by `/` or `%2F`.
fn params(template: &str, path: &str) -> Option<Vec<String>> {
    let (mut found, mut parts) = (Vec::new(), path.split('/'));
    for word in template.split('/') {
        let part = parts.next()?;
        if word == "{project-slug}" {
            found.push(format!("{part}/{}/{}", parts.next()?, parts.next()?));
        } else if word.starts_with('{') && !part.is_empty() {
            found.push(part.to_owned());
        } else if word != part {
            return None;
        }
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::params;

    #[test]
    fn params_of_project_slug_take_three_parts_of_the_path() {
        let table = [
            ("/me", "/me", Some(vec![])),
            ("/me", "/me/x", None),
            ("/project/{project-slug}", "/project/gh/a/b", Some(vec!["gh/a/b"])),
            ("/project/{project-slug}", "/project/gh/a", None),
            ("/workflow/{id}", "/workflow/", None),
        ];
        for (template, path, wanted) in table {
            let wanted = wanted.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(params(template, path), wanted, "{template} {path}");
        }
    }
}
