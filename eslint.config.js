import js from "@eslint/js"
import globals from "globals"

export default [
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2023, sourceType: "module" },
    rules: {
      camelcase: ["error", { properties: "never", ignoreDestructuring: true }],
      eqeqeq: ["error", "always", { null: "ignore" }],
      "max-lines": ["error", 300],
      "max-lines-per-function": ["error", 40],
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "Text from the training must not become markup: use createElement." },
        { property: "outerHTML", message: "Text from the training must not become markup: use createElement." },
      ],
      "no-shadow": "error",
      "no-throw-literal": "error",
      "no-unused-expressions": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": ["error", { destructuring: "all" }],
    },
  },
  { files: ["viewer/static/**/*.js"], languageOptions: { globals: globals.browser } },
  {
    files: ["tests/**/*.js", "eslint.config.js"],
    languageOptions: { globals: globals.node },
    rules: { "max-lines-per-function": "off" },
  },
]
