//! Checks the images of jobs: removed ones, and those that change under the same name.

use std::collections::BTreeMap;

use crate::finding::Report;
use crate::model::{Definition, Kind, Model};
use crate::text;
use crate::yaml::Node;

/// Tags that move to newer images.
const MOVING_TAGS: &[&str] = &["latest", "current", "stable", "edge"];

/// Removed images of virtual machines: Ubuntu 14.04 and 16.04, since May 2022.
const RETIRED_MACHINES: &[&str] = &["circleci/classic", "ubuntu-1404", "ubuntu-1604"];

/// The images under `circleci/` that `cimg/` replaces. Others there, such as `circleci/circleci-cli`, are maintained.
const REPLACED: &[&str] = &[
    "android",
    "buildpack-deps",
    "clojure",
    "dynamodb",
    "elixir",
    "golang",
    "jruby",
    "mariadb",
    "mongo",
    "mysql",
    "node",
    "openjdk",
    "php",
    "postgres",
    "python",
    "redis",
    "ruby",
    "rust",
];

/// The last Xcode 14 image was removed in October 2026.
const OLDEST_XCODE: u32 = 15;

/// An image and its user.
struct Image<'a> {
    owner: String,
    line: usize,
    name: &'a str,
    platform: Platform,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Platform {
    Docker,
    Machine,
    Xcode,
}

fn images<'a>(model: &'a Model) -> impl Iterator<Item = Image<'a>> {
    model.definitions.iter().filter(|it| it.kind != Kind::Command).flat_map(of_definition)
}

fn of_definition<'a>(definition: &'a Definition) -> impl Iterator<Item = Image<'a>> {
    let containers = definition.body.get("docker").map_or(&[][..], Node::items);
    let docker = containers.iter().filter_map(|it| it.get("image")).map(|it| (Platform::Docker, it));
    let machine = definition.body.get("machine").and_then(|it| it.get("image")).map(|it| (Platform::Machine, it));
    let xcode = definition.body.get("macos").and_then(|it| it.get("xcode")).map(|it| (Platform::Xcode, it));
    docker.chain(machine).chain(xcode).filter(|(_, node)| !node.is_null()).filter_map(|(platform, node)| {
        Some(Image { owner: definition.title(), line: node.line, name: node.text()?, platform })
    })
}

pub(super) fn retired_images(model: &Model, report: &mut Report) {
    for (image, owners) in by_name(images(model).filter(is_retired)) {
        let name = image.name;
        match image.platform {
            Platform::Xcode => report.error(
                "retired-image",
                image.line,
                format!("{owners} asks for Xcode {name}, which CircleCI has removed"),
                "write a version that CircleCI offers: `xcode: 26.4.0`",
            ),
            Platform::Machine => report.error(
                "retired-image",
                image.line,
                format!("image `{name}` of {owners} was removed in May 2022"),
                "write an image with a supported Ubuntu: `ubuntu-2404:2025.09.1`",
            ),
            Platform::Docker => report.warning(
                "retired-image",
                image.line,
                format!("image `{name}` of {owners} has had no updates since 2022"),
                "take the image of the same language under `cimg/`: `circleci/node` is now `cimg/node`",
            ),
        }
    }
}

fn is_retired(image: &Image) -> bool {
    match image.platform {
        Platform::Docker => {
            let name = image.name.strip_prefix("circleci/").map(|name| name.split([':', '@']).next().unwrap_or(name));
            name.is_some_and(|name| REPLACED.contains(&name))
        }
        Platform::Machine => {
            let family = image.name.split(':').next().unwrap_or_default();
            RETIRED_MACHINES.contains(&family)
        }
        Platform::Xcode => {
            let major = image.name.split('.').next().and_then(|major| major.parse::<u32>().ok());
            major.is_some_and(|major| major < OLDEST_XCODE)
        }
    }
}

pub(super) fn mutable_images(model: &Model, report: &mut Report) {
    let moving = images(model).filter(|image| !is_retired(image) && fault(image).is_some());
    for (image, owners) in by_name(moving) {
        let fault = fault(&image).unwrap_or_default();
        report.warning(
            "mutable-image",
            image.line,
            format!("image `{}` of {owners} {fault}", image.name),
            "pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again",
        );
    }
}

/// Why an image may change. A machine image without a tag has its version in the name.
fn fault(image: &Image) -> Option<String> {
    let name = image.name;
    if text::is_open(name) || name.contains(['@', '$']) || image.platform == Platform::Xcode {
        return None;
    }
    // A colon before the last slash belongs to a registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        None => (image.platform == Platform::Docker).then(|| "has no tag, which means `latest`".to_owned()),
        Some((_, tag)) if MOVING_TAGS.contains(&tag) => Some(format!("has the tag `{tag}`, which moves")),
        Some(_) => None,
    }
}

/// The first use of each image, and its users: ``job `a` and 2 more``.
fn by_name<'a>(images: impl Iterator<Item = Image<'a>>) -> Vec<(Image<'a>, String)> {
    let mut found: BTreeMap<&str, Vec<Image>> = BTreeMap::new();
    for image in images {
        found.entry(image.name).or_default().push(image);
    }
    let grouped = found.into_values().filter_map(|images| {
        let more = images.len() - 1;
        let first = images.into_iter().min_by_key(|image| image.line)?;
        let owners = if more == 0 { first.owner.clone() } else { format!("{} and {more} more", first.owner) };
        Some((first, owners))
    });
    grouped.collect()
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "as `expect-test` writes them")]
mod tests {
    use expect_test::expect;

    use crate::tests::check;

    #[test]
    fn image_with_moving_tag_is_reported() {
        check(
            "
            executors:
              moving: { docker: [{ image: cimg/rust:stable }, { image: redis }, { image: localhost:5000/x }] }
              vm: { machine: { image: ubuntu-2204:current } }
              pinned:
                docker:
                  - image: cimg/rust:1.94.0
                  - image: redis@sha256:0123
                  - image: cimg/node:<< pipeline.parameters.tag >>
                  - image: localhost:5000/x:1
              vms: { machine: { image: android:2024.11.1 } }
              named: { machine: { image: windows-default } }
            jobs: { build: { executor: vm, steps: [checkout] } }
            parameters: { tag: { type: string, default: '1' } }
            ",
            expect![[r#"
                2 warning mutable-image: image `cimg/rust:stable` of executor `moving` has the tag `stable`, which moves
                    pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again
                2 warning mutable-image: image `localhost:5000/x` of executor `moving` has no tag, which means `latest`
                    pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again
                2 warning mutable-image: image `redis` of executor `moving` has no tag, which means `latest`
                    pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again
                3 warning mutable-image: image `ubuntu-2204:current` of executor `vm` has the tag `current`, which moves
                    pin a version tag or a digest (`@sha256:…`): the same commit then builds the same again
            "#]],
        );
    }

    #[test]
    fn image_that_circleci_has_removed_is_reported() {
        check(
            "
            executors:
              old: { machine: { image: ubuntu-1604:202104-01 } }
              older: { machine: { image: circleci/classic:latest } }
              mac: { macos: { xcode: 13.4.1 } }
              last: { macos: { xcode: '14.3.1' } }
              new: { macos: { xcode: 26.4.0 } }
              open: { macos: { xcode: << parameters.xcode >> }, parameters: { xcode: { type: string } } }
              node: { docker: [{ image: circleci/node:14 }] }
              same: { docker: [{ image: circleci/node:14 }] }
              cimg: { docker: [{ image: cimg/node:22.1 }] }
              alive: { docker: [{ image: circleci/circleci-cli:0.1.30995 }, { image: circleci/runner:launch-agent }] }
              vm: { machine: { image: ubuntu-2404:2025.09.1 } }
            jobs: { build: { executor: vm, steps: [checkout] } }
            ",
            expect![[r#"
                2 error retired-image: image `ubuntu-1604:202104-01` of executor `old` was removed in May 2022
                    write an image with a supported Ubuntu: `ubuntu-2404:2025.09.1`
                3 error retired-image: image `circleci/classic:latest` of executor `older` was removed in May 2022
                    write an image with a supported Ubuntu: `ubuntu-2404:2025.09.1`
                4 error retired-image: executor `mac` asks for Xcode 13.4.1, which CircleCI has removed
                    write a version that CircleCI offers: `xcode: 26.4.0`
                5 error retired-image: executor `last` asks for Xcode 14.3.1, which CircleCI has removed
                    write a version that CircleCI offers: `xcode: 26.4.0`
                8 warning retired-image: image `circleci/node:14` of executor `node` and 1 more has had no updates since 2022
                    take the image of the same language under `cimg/`: `circleci/node` is now `cimg/node`
            "#]],
        );
    }
}
