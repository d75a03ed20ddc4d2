/** Draws parts of the page, but not while a button in them is pressed: one that is replaced would lose the click. */

/**
 * Return a function that draws now, or once nothing in an element is pressed any more.
 * @param {HTMLElement} element
 * @param {() => void} draw draws the newest data
 */
export function deferDrawWhilePressed(element, draw) {
  let isPressed = false, isDue = false
  element.addEventListener("pointerdown", () => { isPressed = true })
  for (const event of ["pointerup", "pointercancel"]) {
    addEventListener(event, () => {
      if (isPressed) setTimeout(onRelease) // after the click
    })
  }
  function onRelease() {
    isPressed = false
    if (isDue) draw()
    isDue = false
  }
  return () => {
    if (isPressed) isDue = true
    else draw()
  }
}
