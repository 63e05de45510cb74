/** What a filter's text means: a test of a cell, null for none, undefined if it means nothing.
 *
 *  >0.9  >=1e-3  <5  =10  !=3  0.1..0.5  several of them together; "=word" is the whole cell,
 *  "!word" a cell without it, any other text a cell that contains it. "–" finds empty cells. */
function filterOf(text) {
  const wanted = text.trim();
  if (!wanted) return null;
  if (wanted === "–" || wanted === "-") return (cell) => cell === null;
  const tests = numericTests(wanted);
  if (tests === undefined) return undefined;
  if (tests) return (cell) => typeof cell === "number" && tests.every((test) => test(cell));
  if (/^!=?/.test(wanted)) {
    const word = wanted.replace(/^!=?\s*/, "").toLowerCase();
    return wanted.startsWith("!=")
      ? (cell) => cell !== null && words(cell) !== word
      : (cell) => !words(cell).includes(word);
  }
  if (wanted.startsWith("=")) {
    const word = wanted.slice(1).trim().toLowerCase();
    return (cell) => cell !== null && words(cell) === word;
  }
  return (cell) => words(cell).includes(wanted.toLowerCase());
}

const NUMBER = String.raw`[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?`;
const COMPARISON = new RegExp(String.raw`^(>=|<=|!=|>|<|=)\s*(${NUMBER})(?=\s|[<>=!&,]|$)`, "i");
const RANGE = new RegExp(String.raw`^(${NUMBER})\s*\.\.\s*(${NUMBER})(?=\s|$)`, "i");

/** Tests that all hold; null where the text is about words; undefined where ">" lacks a number. */
function numericTests(text) {
  const tests = [];
  let rest = text;
  while (rest) {
    const compared = COMPARISON.exec(rest);
    const range = compared ? null : RANGE.exec(rest);
    if (!compared && !range) return tests.length || /^[<>]/.test(rest) ? undefined : null;
    tests.push(compared ? comparison(compared[1], Number(compared[2]))
      : (cell) => cell >= Number(range[1]) && cell <= Number(range[2]));
    rest = rest.slice((compared || range)[0].length).replace(/^[\s&,]+/, "");
  }
  return tests;
}

function comparison(sign, bound) {
  const equal = (cell) => cell === bound || shown(cell) === shown(bound);
  return {
    ">": (cell) => cell > bound, ">=": (cell) => cell >= bound,
    "<": (cell) => cell < bound, "<=": (cell) => cell <= bound,
    "=": equal, "!=": (cell) => !equal(cell),
  }[sign];
}

function words(cell) {
  return cell === null ? "" : `${typeof cell === "number" ? shown(cell) : cell}`.toLowerCase();
}

/** Numbers by size, then texts; what is missing comes last, whichever way. */
function compareCells(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  const numbers = (typeof b === "number") - (typeof a === "number");
  if (numbers) return numbers;
  if (typeof a === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
}
