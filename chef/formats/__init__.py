"""How Django writes dates and times where a template does not say it, such as in the admin: to the second, in UTC."""
