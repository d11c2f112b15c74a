//! Checks resource classes: that they exist and fit the executor.

use crate::finding::{Report, Severity};
use crate::model::{Definition, Kind, Model};
use crate::text;
use crate::text::did_you_mean;
use crate::yaml::Node;

/// Sizes of Docker and Linux machines. Only these have suffixes.
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

/// Families of classes by prefix: Intel is removed since 2024, M1 is only no longer listed.
const RETIRED: &[(&str, Severity)] = &[("macos.x86.", Severity::Error), ("macos.m1.", Severity::Warning)];

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
    if let Some((_, severity)) = RETIRED.iter().find(|(retired, _)| class.starts_with(retired)) {
        return report.add(
            *severity,
            "retired-resource-class",
            node.line,
            format!("{owner} asks for resource class `{class}`, which CircleCI no longer lists"),
            "write one of the Mac classes: `m4pro.medium`, `m4pro.large`".to_owned(),
        );
    }
    let near = did_you_mean(class, SIZES.iter().chain(FAMILIES).copied());
    // An unknown name may be a class of a server installation.
    let severity = if near.is_empty() { Severity::Warning } else { Severity::Error };
    report.add(
        severity,
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
    // A self-hosted runner: only its owner knows whether it exists.
    if let Some((namespace, runner)) = class.split_once('/') {
        return !namespace.is_empty() && !runner.is_empty() && !runner.contains('/');
    }
    GENERATIONS.iter().any(|it| class.strip_suffix(it).is_some_and(|size| SIZES.contains(&size)))
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::tests::check;

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
              l: { macos: { xcode: 16.0.0 }, resource_class: macos.x86.medium.gen2 }
              m: { macos: { xcode: 16.0.0 }, resource_class: macos.m1.medium.gen1 }
            jobs:
              build:
                docker: [{ image: a:1 }]
                resource_class: meduim
                steps: [{ setup_remote_docker: { resource_class: huge } }, { setup_remote_docker: {} }]
            ",
            expect![[r#"
                9 error unknown-resource-class: executor `g` asks for resource class `Large`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own; did you mean `large`?
                10 warning unknown-resource-class: executor `h` asks for resource class `acme/`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own
                11 error wrong-resource-class: executor `i` runs on `macos`, which has no resource class `large`
                    write one of the Mac classes: `m4pro.medium`, `m4pro.large`
                12 error wrong-resource-class: executor `j` runs on `docker`, which has no resource class `windows.medium`
                    write a class of Docker machines: `medium`, `large`, `arm.large`
                13 error wrong-resource-class: executor `k` runs on `machine`, which has no resource class `m4pro.medium`
                    write a class of Linux or Windows machines: `large`, `arm.large`, `windows.large`
                14 error retired-resource-class: executor `l` asks for resource class `macos.x86.medium.gen2`, which CircleCI no longer lists
                    write one of the Mac classes: `m4pro.medium`, `m4pro.large`
                15 warning retired-resource-class: executor `m` asks for resource class `macos.m1.medium.gen1`, which CircleCI no longer lists
                    write one of the Mac classes: `m4pro.medium`, `m4pro.large`
                19 error unknown-resource-class: job `build` asks for resource class `meduim`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own; did you mean `medium`?
                20 warning unknown-resource-class: job `build` asks for resource class `huge`, which CircleCI does not have
                    write a class such as `medium` or `large`, or `<namespace>/<runner>` of your own
            "#]],
        );
    }
}
