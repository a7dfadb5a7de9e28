"""Django's default formats of dates and times, as in the admin: to the second, in UTC."""
