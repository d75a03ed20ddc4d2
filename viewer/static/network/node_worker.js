/** Draws the nodes in a worker. */

import {serveCanvas} from "../shared/canvas_worker.js"
import {paintNodes} from "./node_painter.js"

serveCanvas(paintNodes)
