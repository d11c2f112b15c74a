//! Checks the cron lines of scheduled workflows: five fields, each a list of numbers, ranges and steps.

/// A field: its name, its bounds, and the names of its numbers from the lower bound.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of the month", min: 1, max: 31, names: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // Both 0 and 7 are Sunday.
    Field { name: "day of the week", min: 0, max: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Why a line is not a valid schedule.
pub(super) fn fault(line: &str) -> Option<String> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    if line.trim_start().starts_with('@') {
        return Some("names such as `@daily` are not supported".to_owned());
    }
    if parts.len() != FIELDS.len() {
        return Some(format!("it has {} fields instead of 5", parts.len()));
    }
    parts.iter().zip(&FIELDS).find_map(|(part, field)| fault_of_field(part, field))
}

fn fault_of_field(text: &str, field: &Field) -> Option<String> {
    text.split(',').find_map(|item| fault_of_item(item, field))
}

/// `*`, `5`, `1-5`, and any of them with a step: `*/15`.
fn fault_of_item(item: &str, field: &Field) -> Option<String> {
    let no = |reason: &str| Some(format!("`{item}` is not a {}: {reason}", field.name));
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step
        && step.parse::<u32>().map_or(true, |step| step == 0 || step > field.max.max(1))
    {
        return no("the step is not a number within the field");
    }
    if range == "*" {
        return None;
    }
    let (first, last) = range.split_once('-').map_or((range, range), |ends| ends);
    let (Some(first), Some(last)) = (number(first, field), number(last, field)) else {
        return no(&format!("the range is {} to {}", field.min, field.max));
    };
    if first > last { no("the range runs backwards") } else { None }
}

fn number(text: &str, field: &Field) -> Option<u32> {
    let name = text.to_ascii_lowercase();
    let named = field.names.iter().zip(field.min..).find(|(it, _)| **it == name).map(|(_, number)| number);
    let is_number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    named.or_else(|| text.parse().ok().filter(|_| is_number)).filter(|number| (field.min..=field.max).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_schedule_accepts_what_runs() {
        for line in [
            "0 0 * * *",
            " 5  4 * * 1-5 ",
            "*/15 * * * *",
            "0,30 8-18 1,15 1-12 0",
            "0 0 * * 7",
            "0 9 * JAN-MAR Mon,WED,fri",
            "0 0-23/2 * * *",
            "59 23 31 12 6",
            "05 04 * * *",
        ] {
            assert_eq!(fault(line), None, "{line}");
        }
    }

    #[test]
    fn read_wrong_schedule_says_which_field() {
        let table = [
            ("", "it has 0 fields instead of 5"),
            ("0 0 * *", "it has 4 fields instead of 5"),
            ("0 0 0 * * *", "it has 6 fields instead of 5"),
            ("@daily", "names such as `@daily` are not supported"),
            ("60 0 * * *", "`60` is not a minute: the range is 0 to 59"),
            ("0 24 * * *", "`24` is not a hour: the range is 0 to 23"),
            ("0 0 0 * *", "`0` is not a day of the month: the range is 1 to 31"),
            ("0 0 * 13 *", "`13` is not a month: the range is 1 to 12"),
            ("0 0 * * 8", "`8` is not a day of the week: the range is 0 to 7"),
            ("0 0 * * MONDAY", "`MONDAY` is not a day of the week: the range is 0 to 7"),
            ("0 0 L * *", "`L` is not a day of the month: the range is 1 to 31"),
            ("0 0 ? * *", "`?` is not a day of the month: the range is 1 to 31"),
            ("0 5-1 * * *", "`5-1` is not a hour: the range runs backwards"),
            ("*/0 * * * *", "`*/0` is not a minute: the step is not a number within the field"),
            ("1,,2 0 * * *", "`` is not a minute: the range is 0 to 59"),
            ("+1 0 * * *", "`+1` is not a minute: the range is 0 to 59"),
            ("99999999999 0 * * *", "`99999999999` is not a minute: the range is 0 to 59"),
            ("- 0 * * *", "`-` is not a minute: the range is 0 to 59"),
        ];
        for (line, expected) in table {
            assert_eq!(fault(line).as_deref(), Some(expected), "{line}");
        }
    }
}
