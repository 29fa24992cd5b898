// Marks the folder as a module of its own; v1.mod and v1beta1.mod say what is built.
module oracle

go 1.25.0
