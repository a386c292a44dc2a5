// The script of the page and of the shared worker is the same file: this finds out which of both it is.

import { App } from "./app.js";
import { runWorker } from "./worker.js";

if (typeof document === "undefined") runWorker();
else new App();
