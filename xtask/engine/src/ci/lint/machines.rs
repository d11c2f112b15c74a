//! What jobs run on: resource classes that exist, images that stay the same.

use super::Report;
use super::model::{Definition, Kind, Model};
use super::text::{self, did_you_mean};
use crate::ci::yaml::Node;

/// Sizes of Docker and Linux machines. `2xlarge` and the others take no other suffix than these.
const SIZES: &[&str] = &["small", "medium", "medium+", "large", "xlarge", "2xlarge", "2xlarge+"];
const GENERATIONS: &[&str] = &["", ".gen2", ".gen3"];

/// Classes with a family name before the size.
const FAMILIES: &[&str] = &[
    "arm.medium",
    "arm.large",
    "arm.xlarge",
    "arm.2xlarge",
    "arm.medium.gen2",
    "arm.large.gen2",
    "arm.xlarge.gen2",
    "arm.2xlarge.gen2",
    "gpu.nvidia.small",
    "gpu.nvidia.small.gen2",
    "gpu.nvidia.small.multi",
    "gpu.nvidia.medium",
    "gpu.nvidia.medium.multi",
    "gpu.nvidia.large",
    "gpu.nvidia.large.multi",
    "windows.medium",
    "windows.large",
    "windows.xlarge",
    "windows.2xlarge",
    "windows.medium.gen2",
    "windows.large.gen2",
    "windows.xlarge.gen2",
    "windows.2xlarge.gen2",
    "windows.2xlarge+.gen2",
    "windows.gpu.nvidia.medium",
    "m2pro.medium",
    "m2pro.large",
    "m4pro.medium",
    "m4pro.large",
];

/// Tags that point to another image tomorrow.
const MOVING_TAGS: &[&str] = &["latest", "current", "stable", "edge"];

pub(super) fn unknown_resource_classes(model: &Model, report: &mut Report) {
    for definition in model.definitions.iter().filter(|it| it.kind != Kind::Command) {
        let body = definition.body;
        let nested = ["machine", "macos"].into_iter().filter_map(|key| body.get(key));
        let classes = [body].into_iter().chain(nested).filter_map(|it| it.get("resource_class"));
        for class in classes {
            resource_class(definition, class, report);
        }
    }
    for (list, step) in model.steps().filter(|(_, step)| step.name == "setup_remote_docker") {
        let class = step.body.and_then(|body| body.get("resource_class"));
        let known = |class: &&Node| class.text().is_none_or(is_known_class);
        if let Some(class) = class.filter(|class| !known(class)) {
            unknown(&list.owner, class, report);
        }
    }
}

fn resource_class(definition: &Definition, node: &Node, report: &mut Report) {
    let Some(class) = node.text() else { return };
    if !is_known_class(class) {
        return unknown(&definition.title(), node, report);
    }
    if class.contains('/') || text::is_open(class) {
        return;
    }
    let has = |key| definition.body.get(key).is_some();
    let is_mac = class.starts_with("m2pro.") || class.starts_with("m4pro.");
    let is_machine = class.starts_with("gpu.") || class.starts_with("windows.");
    let wrong = if has("docker") && (is_mac || is_machine) {
        "docker"
    } else if has("machine") && is_mac {
        "machine"
    } else if has("macos") && !is_mac {
        "macos"
    } else {
        return;
    };
    report.error(
        "wrong-resource-class",
        node.line,
        format!("{} runs on `{wrong}`, which has no resource class `{class}`", definition.title()),
        match wrong {
            "macos" => "write one of the Mac classes: `m4pro.medium`, `m4pro.large`",
            "machine" => "write a class of Linux or Windows machines: `large`, `arm.large`, `windows.large`",
            _ => "write a class of Docker machines: `medium`, `large`, `arm.large`",
        },
    );
}

fn unknown(owner: &str, node: &Node, report: &mut Report) {
    let class = node.text().unwrap_or_default();
    let near = did_you_mean(class, SIZES.iter().chain(FAMILIES).copied());
    report.error(
        "unknown-resource-class",
        node.line,
        format!("{owner} asks for resource class `{class}`, which CircleCI does not have"),
        format!("write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own{near}"),
    );
}

fn is_known_class(class: &str) -> bool {
    if text::is_open(class) || FAMILIES.contains(&class) {
        return true;
    }
    // A self-hosted runner: only the owner of the namespace knows whether it exists.
    if let Some((namespace, runner)) = class.split_once('/') {
        return !namespace.is_empty() && !runner.is_empty() && !runner.contains('/');
    }
    GENERATIONS.iter().any(|it| class.strip_suffix(it).is_some_and(|size| SIZES.contains(&size)))
}

pub(super) fn mutable_images(model: &Model, report: &mut Report) {
    for definition in model.definitions.iter().filter(|it| it.kind != Kind::Command) {
        let containers = definition.body.get("docker").map_or(&[][..], Node::items);
        for image in containers.iter().filter_map(|it| it.get("image")) {
            let Some(name) = image.text().filter(|_| !image.is_null()) else { continue };
            if let Some(fault) = moving(name, true) {
                mutable_image(definition, image.line, name, &fault, report);
            }
        }
        let machine = definition.body.get("machine").and_then(|it| it.get("image"));
        if let Some((line, name)) = machine.and_then(|it| Some((it.line, it.text()?)))
            && let Some(fault) = moving(name, false)
        {
            mutable_image(definition, line, name, &fault, report);
        }
    }
}

fn mutable_image(definition: &Definition, line: usize, name: &str, fault: &str, report: &mut Report) {
    report.warning(
        "mutable-image",
        line,
        format!("{} runs on image `{name}`, {fault}", definition.title()),
        "pin a version tag or a digest (`@sha256:…`), so that the same commit builds the same again",
    );
}

/// What makes an image move. A machine image without a tag has a name that says its version.
fn moving(image: &str, is_docker: bool) -> Option<String> {
    if text::is_open(image) || image.contains('@') || image.contains('$') {
        return None;
    }
    // A colon before the last slash belongs to the port of a registry.
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None => is_docker.then(|| "which has no tag and so means `latest`".to_owned()),
        Some((_, tag)) if MOVING_TAGS.contains(&tag) => Some(format!("whose tag `{tag}` moves")),
        Some(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::ci::lint::tests::check;

    #[test]
    fn resource_classes() {
        check(
            "
            parameters: { size: { type: string, default: large } }
            executors:
              a: { docker: [{ image: a:1 }], resource_class: 2xlarge+.gen2 }
              b: { docker: [{ image: a:1 }], resource_class: arm.large }
              c: { docker: [{ image: a:1 }], resource_class: << pipeline.parameters.size >> }
              d: { machine: true, resource_class: acme/runner }
              e: { machine: { image: ubuntu-2204:2024.11.1, resource_class: gpu.nvidia.medium } }
              f: { macos: { xcode: 16.0.0, resource_class: m4pro.large } }
              g: { docker: [{ image: a:1 }], resource_class: Large }
              h: { docker: [{ image: a:1 }], resource_class: acme/ }
              i: { macos: { xcode: 16.0.0 }, resource_class: large }
              j: { docker: [{ image: a:1 }], resource_class: windows.medium }
              k: { machine: { image: ubuntu-2204:2024.11.1 }, resource_class: m4pro.medium }
            jobs:
              build:
                docker: [{ image: a:1 }]
                resource_class: meduim
                steps: [{ setup_remote_docker: { resource_class: huge } }, { setup_remote_docker: {} }]
            ",
            expect![[r#"
                9 error unknown-resource-class: executor `g` asks for resource class `Large`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own; did you mean `large`?
                10 error unknown-resource-class: executor `h` asks for resource class `acme/`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own
                11 error wrong-resource-class: executor `i` runs on `macos`, which has no resource class `large`
                    write one of the Mac classes: `m4pro.medium`, `m4pro.large`
                12 error wrong-resource-class: executor `j` runs on `docker`, which has no resource class `windows.medium`
                    write a class of Docker machines: `medium`, `large`, `arm.large`
                13 error wrong-resource-class: executor `k` runs on `machine`, which has no resource class `m4pro.medium`
                    write a class of Linux or Windows machines: `large`, `arm.large`, `windows.large`
                17 error unknown-resource-class: job `build` asks for resource class `meduim`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own; did you mean `medium`?
                18 error unknown-resource-class: job `build` asks for resource class `huge`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own
            "#]],
        );
    }

    #[test]
    fn images() {
        check(
            "
            executors:
              moving: { docker: [{ image: cimg/rust:stable }, { image: redis }, { image: localhost:5000/x }] }
              vm: { machine: { image: ubuntu-2204:current } }
              pinned:
                docker:
                  - image: cimg/rust:1.94.0
                  - image: redis@sha256:0123
                  - image: cimg/node:<< parameters.tag >>
                  - image: localhost:5000/x:1
              vms: { machine: { image: android:2024.11.1 } }
              named: { machine: { image: windows-default } }
            jobs: { build: { executor: vm, steps: [checkout] } }
            ",
            expect![[r#"
                2 warning mutable-image: executor `moving` runs on image `cimg/rust:stable`, whose tag `stable` moves
                    pin a version tag or a digest (`@sha256:…`), so that the same commit builds the same again
                2 warning mutable-image: executor `moving` runs on image `localhost:5000/x`, which has no tag and so means `latest`
                    pin a version tag or a digest (`@sha256:…`), so that the same commit builds the same again
                2 warning mutable-image: executor `moving` runs on image `redis`, which has no tag and so means `latest`
                    pin a version tag or a digest (`@sha256:…`), so that the same commit builds the same again
                3 warning mutable-image: executor `vm` runs on image `ubuntu-2204:current`, whose tag `current` moves
                    pin a version tag or a digest (`@sha256:…`), so that the same commit builds the same again
            "#]],
        );
    }
}
