/** Dark or light, and the colors of it. */

import {byId} from "./dom.js"
import {reportView} from "./link.js"
import {config} from "./page_config.js"
import {colorSteps, hslSteps} from "./color_steps.js"

/** @import {Palette} from "./page_config.js" */

export const GRADIENT_STEPS = 24
export const PATH_STEPS = 10

/**
 * @typedef {object} ThemeColors
 * @property {string[]} gradient of nodes and borders, from the weakest to the strongest
 * @property {string[]} paths from the thinnest to the thickest
 * @property {string} dead
 * @property {string} added
 * @property {string} staged
 * @property {string} frozen
 * @property {string} selected
 * @property {string} selectedPath
 * @property {string} hover
 * @property {string} muted
 */

/** @type {(() => void)[]} */
const callbacks = []
const palettes = {dark: themeColors(config.palettes.dark), light: themeColors(config.palettes.light)}

/**
 * @param {Palette} palette
 * @returns {ThemeColors}
 */
function themeColors({gradient_ramp: gradientRamp, paths, dead, green, red, frozen, selected, selected_path: selectedPath, hover, muted}) {
  return {
    gradient: colorSteps(gradientRamp, GRADIENT_STEPS), paths: hslSteps(paths, PATH_STEPS),
    dead, added: green, staged: red, frozen, selected, selectedPath, hover, muted,
  }
}

export const themeName = () => document.documentElement.dataset.theme === "light" ? "light" : "dark"
export const isLight = () => themeName() === "light"

/** The colors of the present theme: always the same object for the same theme. */
export const colors = () => palettes[themeName()]

/** @param {() => void} callback called after the theme has changed */
export function onThemeChange(callback) {
  callbacks.push(callback)
}

/** The server draws its charts in the theme that the cookie names. */
export function toggleTheme() {
  const theme = isLight() ? "dark" : "light"
  document.documentElement.dataset.theme = theme
  document.cookie = `revacnn-theme=${theme}; path=/; max-age=31536000; samesite=lax`
  reportView({theme})
  for (const callback of callbacks) callback()
}

export function startTheme() {
  byId("theme").addEventListener("click", toggleTheme)
}
